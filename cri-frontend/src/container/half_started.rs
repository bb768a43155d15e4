//! Containers that a killed frontend was starting: its shim goes on, and has made them, makes them, or lets them run.

use std::{sync::Arc, time::Duration};

use tokio::time::{sleep, timeout};
use tracing::{info, warn};

use super::{Container, ContainerState, observe, watch};
use crate::{
    error::Error,
    node::Node,
    shim::{Shim, ShimError},
};

/// Longer than a shim takes to make and to start a container.
const BOUND: Duration = Duration::from_secs(200);
/// Between two looks at a shim that is at work.
const PAUSE: Duration = Duration::from_millis(100);

/// Settles all containers that were never started as far as the records know.
pub fn settle_all(node: &Arc<Node>, containers: &[Arc<Container>], shim: &Shim) {
    for container in containers {
        let (owner, container, shim) = (node.clone(), container.clone(), shim.clone());
        node.watch(async move {
            let _alone = container.lifecycle.lock().await;
            if container.record.with(|record| record.state != ContainerState::Created) {
                return;
            }
            match settle(&owner, &container, &shim).await {
                Ok(true) => watch(&owner, &container, shim),
                Ok(false) => {}
                Err(error) => {
                    warn!(container = %container.id, %error, "a half-started container is not settled");
                }
            }
        });
    }
}

/// Unmakes a container that was not started, so that it can be; true where it was started, which the record says then.
pub(super) async fn settle(node: &Node, container: &Arc<Container>, shim: &Shim) -> Result<bool, Error> {
    let looking = async {
        loop {
            // Before it is unmade: what has run to its end must not run again.
            let state = shim.state().await?;
            observe(node, std::slice::from_ref(container), &state).await?;
            if container.record.with(|record| record.state.is_running() || record.state.is_exited()) {
                return Ok(true);
            }
            match shim.delete(&container.id, None).await {
                Ok(()) => {
                    info!(container = %container.id, "a half-started container is unmade");
                    return Ok(false);
                }
                Err(error) if error.is_not_found() => return Ok(false),
                Err(error) if error.is_wrong_state() => sleep(PAUSE).await,
                Err(error) => return Err(Error::from(error)),
            }
        }
    };
    let late = |_| ShimError::Silent { call: "the end of an earlier start", bound: BOUND };
    timeout(BOUND, looking).await.map_err(late)?
}
