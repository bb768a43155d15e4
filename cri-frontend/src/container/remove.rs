//! RemoveContainer: forgets a container, and kills it first if it has to.

use std::{sync::Arc, time::Duration};

use tokio::time::timeout;
use tracing::info;

use super::{
    Container, image_volume,
    stop::{KILL_BOUND, SIGKILL, end, signalled},
};
use crate::{
    error::Error,
    events::Kind,
    node::{Node, files},
    shim::Shim,
};

/// Removes a container; the unknown is removed already.
pub async fn remove(node: &Arc<Node>, id: &str) -> Result<(), Error> {
    let Some(container) = node.containers.find(id)? else { return Ok(()) };
    let owner = node.clone();
    node.finish(async move {
        // A pod that is gone has taken its containers along.
        let Ok(sandbox) = container.pod(&owner) else { return Ok(()) };
        let _pod_stays = sandbox.lifecycle.read().await;
        let _alone = container.lifecycle.lock().await;
        end(&owner, &container, Duration::ZERO).await?;
        if sandbox.record.with(crate::sandbox::SandboxRecord::is_ready) {
            unmake(&sandbox.shim()?, &container).await?;
        }
        forget(&owner, &container).await
    })
    .await
}

/// The guest forgets it, with its writable layer. What runs there although its records say that it ended, since the answer
/// to its start never came, is killed first.
pub(super) async fn unmake(shim: &Shim, container: &Container) -> Result<(), Error> {
    let deleted = match shim.delete(&container.id, None).await {
        Err(error) if error.is_wrong_state() => {
            signalled(shim.kill(&container.id, SIGKILL, true).await)?;
            // Its exit is nobody's news; what matters is whether it can be deleted now.
            let _ = timeout(KILL_BOUND, shim.wait(&container.id, None)).await;
            shim.delete(&container.id, None).await
        }
        deleted => deleted,
    };
    match deleted {
        Err(error) if error.is_not_found() => Ok(()),
        result => Ok(result?),
    }
}

/// The node forgets it. The guest has none of it any more, or is gone.
pub async fn forget(node: &Node, container: &Container) -> Result<(), Error> {
    files::remove_tree(container.bundle.clone()).await?;
    container.record.delete(&node.db).await?;
    if !node.containers.remove(container.id.as_str()) {
        // Another call for the same container was quicker, and has told of it.
        return Ok(());
    }
    let record = container.record.get();
    let name = record.unique_name();
    node.container_names.free(&name, container.id.as_str());
    node.images.release(container.id.as_str());
    image_volume::release(node, &container.id, record.image_volumes.values());
    if let Ok(sandbox) = container.pod(node) {
        node.tell(container.id.as_str(), &sandbox, &[Kind::Deleted]);
    }
    info!(container = %container.id, "container is removed");
    Ok(())
}
