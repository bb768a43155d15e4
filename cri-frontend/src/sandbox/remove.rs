//! RemovePodSandbox: forgets a pod, and stops it first if it has to.

use std::sync::Arc;

use futures::future::try_join_all;
use tracing::info;

use super::{Sandbox, stop::halt};
use crate::{container, error::Error, events::Kind, node::Node};

/// Removes a pod sandbox with all its containers; the unknown is removed already.
pub async fn remove(node: &Arc<Node>, id: &str) -> Result<(), Error> {
    let Some(sandbox) = node.sandboxes.find(id)? else { return Ok(()) };
    let owner = node.clone();
    node.finish(async move {
        let _exclusive = sandbox.lifecycle.write().await;
        halt(&owner, &sandbox).await?;
        forget(&owner, &sandbox).await
    })
    .await
}

async fn forget(node: &Arc<Node>, sandbox: &Sandbox) -> Result<(), Error> {
    let containers = node.containers_of(sandbox);
    try_join_all(containers.iter().map(|container| container::remove::forget(node, container))).await?;
    sandbox.record.delete(&node.db).await?;
    if !node.sandboxes.remove(sandbox.id.as_str()) {
        // Another call for the same pod was quicker, and has told of it.
        return Ok(());
    }
    let name = sandbox.record.with(super::SandboxRecord::unique_name);
    node.sandbox_names.free(&name, sandbox.id.as_str());
    node.tell(sandbox.id.as_str(), sandbox, &[Kind::Deleted]);
    info!(sandbox = %sandbox.id, "pod sandbox is removed");
    Ok(())
}
