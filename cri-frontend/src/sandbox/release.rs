//! Releasing what a sandbox has; every step may be repeated, and copes with nothing being left.

use std::{sync::Arc, time::Duration};

use tracing::warn;

use super::{Sandbox, network};
use crate::{
    error::Error,
    node::{Node, files},
    shim::{Connection, connect},
};

/// From a shim's answer to its end.
const SHIM_END: Duration = Duration::from_secs(5);

/// Ends the shim, and with it the VM and all helpers; what a dead shim left is cleaned up by `delete`.
pub async fn shim(node: Arc<Node>, sandbox: Arc<Sandbox>) -> Result<(), Error> {
    if let Some(shim) = live_shim(&sandbox).await {
        let answer = shim.shutdown_sandbox().await;
        if answer.is_ok() && shim.process.ended(SHIM_END).await {
            return Ok(());
        }
        warn!(sandbox = %sandbox.id, ?answer, "the shim does not end when asked and is killed");
        shim.process.kill();
        shim.process.ended(SHIM_END).await;
    }
    files::make_private_dir(sandbox.bundle.clone()).await?;
    node.shims.delete(&sandbox.id, &sandbox.bundle).await?;
    Ok(())
}

/// All that is left when the VM has stopped. CNI's plugins and the shim's end do not depend on each other.
pub async fn everything(node: &Arc<Node>, sandbox: &Arc<Sandbox>) -> Result<(), Error> {
    let (shim, network) =
        tokio::join!(shim(node.clone(), sandbox.clone()), network::release(node.clone(), sandbox.clone()));
    shim.map_err(Error::at(format!("pod sandbox {}", sandbox.id), "ending its shim"))?;
    network.map_err(Error::at(format!("pod sandbox {}", sandbox.id), "releasing its network"))?;
    directories(sandbox.clone()).await
}

/// Removes the pod's directories.
pub async fn directories(sandbox: Arc<Sandbox>) -> Result<(), Error> {
    files::remove_tree(sandbox.root.clone()).await?;
    files::remove_tree(sandbox.bundle.clone()).await
}

async fn live_shim(sandbox: &Sandbox) -> Option<crate::shim::Shim> {
    if let Some(shim) = sandbox.disconnect() {
        return Some(shim);
    }
    match connect(&sandbox.id, &sandbox.bundle).await {
        Ok(Connection::Live(shim)) => Some(shim),
        Ok(Connection::Gone) => None,
        Err(error) => {
            warn!(sandbox = %sandbox.id, %error, "cannot ask the shim to end");
            None
        }
    }
}
