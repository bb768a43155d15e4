//! StopContainer: the stop signal, a grace period, SIGKILL.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tokio::time::timeout;
use tracing::info;

use super::{Container, ContainerState};
use crate::{
    error::Error,
    node::Node,
    shim::{Shim, ShimError},
};

/// From SIGKILL to the exit's record: the log is written and the volumes are free then.
pub(super) const KILL_BOUND: Duration = Duration::from_secs(60);
pub(super) const SIGKILL: u32 = 9;

/// Stops a container; the unknown, and what never ran, is stopped already.
pub async fn stop(node: &Arc<Node>, id: &str, grace: Duration) -> Result<(), Error> {
    let Some(container) = node.containers.find(id)? else { return Ok(()) };
    let owner = node.clone();
    node.finish(async move {
        end(&owner, &container, grace).await?;
        Ok(container.record.persist(&owner.db).await?)
    })
    .await
}

/// Returns when the process has ended.
pub(super) async fn end(node: &Node, container: &Container, grace: Duration) -> Result<(), Error> {
    // A start under way cannot be stopped half-way: it ends first, soon.
    container.record.wait_until(|record| record.state != ContainerState::Starting).await;
    if !container.record.with(|record| record.state.is_running()) {
        return Ok(());
    }
    let shim = container.pod(node)?.shim()?;
    if !grace.is_zero() {
        ask(container, &shim).await?;
        let ended = node.shutdown.run_until_cancelled(exited(container, grace)).await;
        if ended.ok_or_else(|| Error::Ending(format!("the stop of container {}", container.id)))? {
            return Ok(());
        }
        info!(container = %container.id, ?grace, "the container outlived its grace and is killed");
    }
    signalled(shim.kill(&container.id, SIGKILL, true).await)?;
    if exited(container, KILL_BOUND).await {
        return Ok(());
    }
    Err(Error::Timeout { what: format!("the killed container {}", container.id), bound: KILL_BOUND })
}

/// Sends the stop signal, once: a caller who repeats his call only waits, as in containerd. Many programs take a second
/// signal for impatience, and give up their orderly end.
async fn ask(container: &Container, shim: &Shim) -> Result<(), Error> {
    if container.asked_to_stop.swap(true, Ordering::Relaxed) {
        return Ok(());
    }
    let signal = container.record.with(|record| record.stop_signal.number);
    signalled(shim.kill(&container.id, signal, false).await)
        .inspect_err(|_| container.asked_to_stop.store(false, Ordering::Relaxed))
}

async fn exited(container: &Container, bound: Duration) -> bool {
    timeout(bound, container.record.wait_until(|record| record.state.is_exited())).await.is_ok()
}

/// A process that has ended meanwhile needs no signal.
pub(super) fn signalled(result: Result<(), ShimError>) -> Result<(), Error> {
    match result {
        Err(error) if error.is_not_found() || error.is_wrong_state() => Ok(()),
        result => Ok(result?),
    }
}
