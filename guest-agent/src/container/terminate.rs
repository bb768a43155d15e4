//! The end of all containers at once.

use std::{sync::Arc, time::Duration};

use super::{Container, Containers, State};

impl Containers {
    /// Asks all containers to end and waits for them, `grace` at most.
    pub async fn terminate(&self, grace: Duration) {
        let ends = self.all().into_iter().map(end);
        // Who has not ended by then is killed by the caller.
        let _ = tokio::time::timeout(grace, futures::future::join_all(ends)).await;
    }
}

/// A container whose start hangs holds its state, and up only itself.
async fn end(container: Arc<Container>) {
    if container.init.ended().is_some() {
        return;
    }
    // One that was never started has no handler, and as the first of its PID namespace it ignores TERM.
    let is_started = matches!(*container.state.read().await, State::Started);
    let signal = if is_started { libc::SIGTERM } else { libc::SIGKILL };
    if let Err(error) = container.init.signal(signal) {
        tracing::warn!(container = %container.id, "{error}");
    }
    // The reaper outlives all processes.
    let _ = container.init.wait().await;
}
