//! ReopenContainerLog: kubelet has renamed the log file and wants a new one.

use std::sync::Arc;

use crate::{error::Error, node::Node};

/// When this returns, every later line goes to a new file.
pub async fn reopen_log(node: &Arc<Node>, id: &str) -> Result<(), Error> {
    let container = node.containers.get(id)?;
    container.require_running("reopening its log")?;
    Ok(container.pod(node)?.shim()?.reopen_log(&container.id).await?)
}
