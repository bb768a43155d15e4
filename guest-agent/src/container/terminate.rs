//! The end of all containers at once.

use std::{sync::Arc, time::Duration};

use super::{Containers, State};

impl Containers {
    /// Asks all containers to end and waits for them, `grace` at most.
    pub async fn terminate(&self, grace: Duration) {
        let living: Vec<_> =
            self.all().into_iter().filter(|container| container.init.ended().is_none()).collect();
        for container in &living {
            // One that was never started has no handler, and as the first of its PID namespace it ignores TERM.
            let is_started = matches!(*container.state.read().await, State::Started);
            let signal = if is_started { libc::SIGTERM } else { libc::SIGKILL };
            if let Err(error) = container.init.signal(signal) {
                tracing::warn!(container = %container.id, "{error}");
            }
        }
        let ends = living.iter().map(|container| {
            let init = Arc::clone(&container.init);
            async move { init.wait().await }
        });
        // Who has not ended by then is killed by the caller.
        let _ = tokio::time::timeout(grace, futures::future::join_all(ends)).await;
    }
}
