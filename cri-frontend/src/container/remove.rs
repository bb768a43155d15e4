//! RemoveContainer: forgets a container, and kills it first if it has to.

use std::{sync::Arc, time::Duration};

use tracing::info;

use super::{Container, image_volume, stop::end};
use crate::{
    error::Error,
    events::Kind,
    node::{Node, files},
};

/// Removes a container; the unknown is removed already.
pub async fn remove(node: &Arc<Node>, id: &str) -> Result<(), Error> {
    let Some(container) = node.containers.find(id)? else { return Ok(()) };
    let owner = node.clone();
    node.finish(async move {
        let sandbox = container.pod(&owner)?;
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

/// The guest forgets it, with its writable layer.
async fn unmake(shim: &crate::shim::Shim, container: &Container) -> Result<(), Error> {
    match shim.delete(&container.id, None).await {
        Err(error) if error.is_not_found() => Ok(()),
        result => Ok(result?),
    }
}

/// The node forgets it. The guest has none of it any more, or is gone.
pub async fn forget(node: &Node, container: &Container) -> Result<(), Error> {
    files::remove_tree(container.bundle.clone()).await?;
    container.record.delete(&node.db).await?;
    node.containers.remove(container.id.as_str());
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
