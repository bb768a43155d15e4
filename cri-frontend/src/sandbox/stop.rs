//! StopPodSandbox: ends all of a pod and releases what it has, except its records.

use std::{sync::Arc, time::Duration};

use tracing::{info, warn};

use super::{Phase, Sandbox, release};
use crate::{
    clock::unix_nanos,
    container::{self, Exit},
    error::Error,
    node::Node,
};

/// kubelet has stopped the containers before, each with its own grace.
const GRACE: Duration = Duration::ZERO;

/// Stops a pod sandbox; the unknown is stopped already.
pub async fn stop(node: &Arc<Node>, id: &str) -> Result<(), Error> {
    let Some(sandbox) = node.sandboxes.find(id)? else { return Ok(()) };
    let owner = node.clone();
    node.finish(async move {
        let _exclusive = sandbox.lifecycle.write().await;
        halt(&owner, &sandbox).await
    })
    .await
}

/// Stops a sandbox whose lifecycle the caller holds. What fails can be tried again by another call.
pub(super) async fn halt(node: &Arc<Node>, sandbox: &Arc<Sandbox>) -> Result<(), Error> {
    match sandbox.record.with(|record| record.phase.clone()) {
        Phase::Stopped => return Ok(()),
        Phase::Ready => end_vm(node, sandbox).await?,
        Phase::Creating | Phase::Dead { .. } => settle_containers(node, sandbox).await?,
    }
    release::everything(node, sandbox).await?;
    sandbox.record.commit(&node.db, |record| record.phase = Phase::Stopped).await?;
    info!(sandbox = %sandbox.id, "pod sandbox is stopped");
    Ok(())
}

async fn end_vm(node: &Arc<Node>, sandbox: &Arc<Sandbox>) -> Result<(), Error> {
    match sandbox.shim() {
        Ok(shim) => {
            if let Err(error) = shim.stop_sandbox(GRACE).await {
                // Its shim is made to end next, and the VM with it.
                warn!(sandbox = %sandbox.id, %error, "the MicroVM does not stop when asked");
            }
        }
        Err(error) => warn!(sandbox = %sandbox.id, %error, "the MicroVM cannot be asked to stop"),
    }
    let reason = "the pod sandbox was stopped".to_owned();
    let phase = Phase::Dead { reason };
    // The containers' exits first: their shim, which knows them, ends next.
    settle_containers(node, sandbox).await?;
    node.change_sandbox(sandbox, |record| record.phase = phase);
    Ok(sandbox.record.persist(&node.db).await?)
}

/// Takes over the exits that the shim knows, and gives the containers one of which it doesn't.
async fn settle_containers(node: &Node, sandbox: &Sandbox) -> Result<(), Error> {
    let containers = node.containers_of(sandbox);
    if let Ok(shim) = sandbox.shim() {
        match shim.state().await {
            Ok(state) => container::observe(node, &containers, &state).await?,
            Err(error) => {
                warn!(sandbox = %sandbox.id, %error, "the shim does not tell the containers' exits");
            }
        }
    }
    let reason = "its pod sandbox was stopped";
    container::end_all(node, &containers, &Exit::with_pod(unix_nanos(), reason)).await
}
