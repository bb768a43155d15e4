//! Watching a container's process, so that its end is known without anyone asking.

use std::sync::Arc;

use tracing::{debug, info, warn};

use super::{Container, Exit, observe, record::exit_code};
use crate::{
    clock::unix_nanos,
    node::Node,
    shim::{Shim, ShimError},
};

/// Watches a running container until it ends, or its shim does: that is the sandbox's watcher's business.
pub fn watch(node: &Arc<Node>, container: &Arc<Container>, shim: Shim) {
    let (owner, container) = (node.clone(), container.clone());
    node.watch(async move {
        match shim.wait(&container.id, None).await {
            Ok(code) => settle(&owner, &container, &shim, code).await,
            Err(ShimError::Lost { .. }) => debug!(container = %container.id, "no longer watched"),
            Err(error) => warn!(container = %container.id, %error, "cannot watch a container"),
        }
    });
}

async fn settle(node: &Arc<Node>, container: &Arc<Container>, shim: &Shim, code: u32) {
    let told = match shim.state().await {
        Ok(state) => observe(node, std::slice::from_ref(container), &state).await,
        Err(error) => {
            warn!(container = %container.id, %error, "the shim does not tell how the container ended");
            Ok(())
        }
    };
    if let Err(error) = told {
        // The shim remembers the exit for the next frontend.
        warn!(container = %container.id, %error, "cannot record how a container ended");
    }
    if container.record.with(|record| record.state.is_exited()) {
        return;
    }
    let code = exit_code(code);
    let reason = if code == 0 { "Completed" } else { "Error" };
    let exit = Exit { code, finished_at: unix_nanos(), reason: reason.into(), message: String::new() };
    info!(container = %container.id, code, "container has ended");
    node.change_container(container, |record| record.state.exit(exit));
    if let Err(error) = container.record.persist(&node.db).await {
        warn!(container = %container.id, %error, "cannot record how a container ended");
    }
}
