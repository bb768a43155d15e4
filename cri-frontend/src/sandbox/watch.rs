//! Watching a pod's VM and shim, so that their end is known without anyone asking.

use std::{sync::Arc, time::Duration};

use tokio::time::sleep;
use tracing::{info, warn};

use super::{
    Sandbox,
    bury::{bury, bury_without_shim},
};
use crate::{
    container::{self, shim_socket::SOCKETS},
    error::Error,
    node::{Node, files},
    shim::{Connection, Shim, ShimError, connect},
};

/// A lost connection is a dead shim if its process ends within this.
const DYING: Duration = Duration::from_secs(1);
/// Between attempts to reach a shim that lives and does not answer.
const RETRY: Duration = Duration::from_secs(5);

/// Who had the connection to a shim before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Before {
    /// This frontend.
    Us,
    /// One that was killed: nobody waits any more for what it was doing.
    Another,
}

/// Watches the VM of a connected sandbox until it ends.
pub fn watch(node: &Arc<Node>, sandbox: &Arc<Sandbox>, shim: Shim) {
    let (owner, sandbox) = (node.clone(), sandbox.clone());
    node.watch(async move {
        let mut shim = shim;
        loop {
            match shim.wait_sandbox().await {
                Ok(()) => return bury(&owner, &sandbox, &shim).await,
                Err(ShimError::Refused { message, .. }) => {
                    warn!(sandbox = %sandbox.id, message, "the shim does not let its sandbox be watched");
                    return bury(&owner, &sandbox, &shim).await;
                }
                Err(error) if shim.process.ended(DYING).await => {
                    return bury_without_shim(
                        &owner,
                        &sandbox,
                        &format!("the pod's shim has ended: {error}"),
                    )
                    .await;
                }
                Err(error) => info!(sandbox = %sandbox.id, %error, "connecting to the shim again"),
            }
            match reconnect(&owner, &sandbox, Before::Us).await {
                Some(again) => shim = again,
                None => return,
            }
        }
    });
}

/// Looks for the shim that an earlier frontend has left to a sandbox until it is clear whether it lives.
pub fn find(node: &Arc<Node>, sandbox: &Arc<Sandbox>) {
    let (owner, sandbox) = (node.clone(), sandbox.clone());
    node.watch(async move {
        if let Some(shim) = reconnect(&owner, &sandbox, Before::Another).await {
            watch(&owner, &sandbox, shim);
        }
    });
}

/// A new connection with all that belongs to it; nothing if the sandbox needs none any more.
async fn reconnect(node: &Arc<Node>, sandbox: &Arc<Sandbox>, before: Before) -> Option<Shim> {
    loop {
        sleep(RETRY).await;
        if !sandbox.record.with(super::SandboxRecord::is_ready) {
            return None;
        }
        match connect(&sandbox.id, &sandbox.bundle).await {
            Ok(Connection::Live(shim)) => match take_over(node, sandbox, &shim, before).await {
                Ok(()) => return Some(shim),
                Err(error) => warn!(sandbox = %sandbox.id, %error, "the shim does not tell its pod's state"),
            },
            Ok(Connection::Gone) => {
                bury_without_shim(node, sandbox, "the pod's shim has ended").await;
                return None;
            }
            Err(error) => warn!(sandbox = %sandbox.id, %error, "the shim cannot be reached"),
        }
    }
}

/// Takes over what the shim of an earlier frontend knows, and watches all that runs.
pub async fn adopt(node: &Arc<Node>, sandbox: &Arc<Sandbox>, shim: Shim) -> Result<(), Error> {
    take_over(node, sandbox, &shim, Before::Another).await?;
    watch(node, sandbox, shim);
    Ok(())
}

async fn take_over(
    node: &Arc<Node>,
    sandbox: &Arc<Sandbox>,
    shim: &Shim,
    before: Before,
) -> Result<(), Error> {
    let state = shim.state().await?;
    if before == Before::Another {
        abandon(sandbox, shim).await?;
    }
    let containers = node.containers_of(sandbox);
    container::observe(node, &containers, &state).await?;
    sandbox.describe(&state);
    sandbox.connect(shim.clone());
    container::settle_half_started(node, &containers, shim);
    for container in containers {
        if container.record.with(|record| record.state.is_running()) {
            container::watch(node, &container, shim.clone());
        }
    }
    Ok(())
}

/// Ends what an earlier frontend was doing.
async fn abandon(sandbox: &Sandbox, shim: &Shim) -> Result<(), Error> {
    // Nobody comes any more to where it waited for streams; before this one can, it must know the shim.
    let sockets = sandbox.bundle.join(SOCKETS);
    files::remove_tree(sockets.clone()).await?;
    files::make_private_dir(sockets).await?;
    if let Err(error) = shim.abandon_execs().await {
        // One of an older version does not know the call.
        warn!(sandbox = %sandbox.id, %error, "execs of an earlier frontend go on until they end");
    }
    Ok(())
}
