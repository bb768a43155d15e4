//! A pod whose VM or shim has ended on its own.

use std::sync::Arc;

use tracing::{error, warn};

use super::{Phase, Sandbox, release};
use crate::{
    clock::unix_nanos,
    container::{self, Exit},
    node::Node,
    shim::Shim,
};

/// The VM has ended; its shim knows why, and how the containers ended.
pub async fn bury(node: &Arc<Node>, sandbox: &Arc<Sandbox>, shim: &Shim) {
    let _exclusive = sandbox.lifecycle.write().await;
    // Whoever stopped it on purpose has done all this.
    if !sandbox.record.with(super::SandboxRecord::is_ready) {
        return;
    }
    let state = match shim.state().await {
        Ok(state) => state,
        Err(error) => {
            warn!(sandbox = %sandbox.id, %error, "the shim does not tell why the MicroVM ended");
            return mark_dead(node, sandbox, "the MicroVM has ended").await;
        }
    };
    if let Err(error) = container::observe(node, &node.containers_of(sandbox), &state).await {
        warn!(sandbox = %sandbox.id, %error, "cannot record how containers ended");
    }
    let reason = if state.message.is_empty() { "the MicroVM has ended" } else { &state.message };
    mark_dead(node, sandbox, reason).await;
}

/// The shim has ended and the VM with it; what it left is cleaned up now.
pub async fn bury_without_shim(node: &Arc<Node>, sandbox: &Arc<Sandbox>, reason: &str) {
    let _exclusive = sandbox.lifecycle.write().await;
    if !sandbox.record.with(super::SandboxRecord::is_ready) {
        return;
    }
    let containers = node.containers_of(sandbox);
    if let Err(error) = container::read_exits(node, &containers).await {
        warn!(sandbox = %sandbox.id, %error, "cannot take over the exits that the shim wrote down");
    }
    mark_dead(node, sandbox, reason).await;
    if let Err(error) = release::shim(node.clone(), sandbox.clone()).await {
        // StopPodSandbox tries again.
        warn!(sandbox = %sandbox.id, %error, "cannot clean up after the shim");
    }
}

async fn mark_dead(node: &Arc<Node>, sandbox: &Sandbox, reason: &str) {
    error!(sandbox = %sandbox.id, reason, "pod sandbox has died");
    let exit = Exit::with_pod(unix_nanos(), reason);
    if let Err(error) = container::end_all(node, &node.containers_of(sandbox), &exit).await {
        warn!(sandbox = %sandbox.id, %error, "cannot record how containers ended");
    }
    let phase = Phase::Dead { reason: reason.to_owned() };
    node.change_sandbox(sandbox, |record| record.phase = phase);
    if let Err(error) = sandbox.record.persist(&node.db).await {
        warn!(sandbox = %sandbox.id, %error, "cannot record the death of a pod sandbox");
    }
}
