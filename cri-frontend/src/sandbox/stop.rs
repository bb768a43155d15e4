//! StopPodSandbox: ends all of a pod and releases what it has, except its records.

use std::{sync::Arc, time::Duration};

use tracing::{info, warn};

use super::{Phase, Sandbox, SandboxRecord, release};
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
    let phase = sandbox.record.with(|record| record.phase.clone());
    if phase == Phase::Stopped {
        // What a full disk refused then finds room now.
        container::persist_all(node, &node.containers_of(sandbox)).await?;
        return Ok(sandbox.record.persist(&node.db).await?);
    }
    if phase == Phase::Ready {
        end_vm(sandbox).await;
    }
    let written = settle(node, sandbox).await;
    release::everything(node, sandbox).await?;
    if let Err(error) = written {
        warn!(sandbox = %sandbox.id, %error, "how the pod ended is written down late");
    }
    // A disk that was full, now or when one of them ended, has room now: the pod's own scratch disk was on it, perhaps.
    container::persist_all(node, &node.containers_of(sandbox)).await?;
    let stopped = |record: &mut SandboxRecord| {
        record.phase = Phase::Stopped;
        // The network may give them to another pod now.
        record.ips.clear();
    };
    sandbox.record.commit(&node.db, stopped).await?;
    info!(sandbox = %sandbox.id, "pod sandbox is stopped");
    Ok(())
}

async fn end_vm(sandbox: &Sandbox) {
    match sandbox.shim() {
        Ok(shim) => {
            if let Err(error) = shim.stop_sandbox(GRACE).await {
                // Its shim is made to end next, and the VM with it.
                warn!(sandbox = %sandbox.id, %error, "the MicroVM does not stop when asked");
            }
        }
        Err(error) => warn!(sandbox = %sandbox.id, %error, "the MicroVM cannot be asked to stop"),
    }
}

/// Writes down how the pod ended, its containers first: their shim, which knows their exits, ends next.
async fn settle(node: &Node, sandbox: &Sandbox) -> Result<(), Error> {
    let containers = settle_containers(node, sandbox).await;
    let reason = "the pod sandbox was stopped".to_owned();
    node.change_sandbox(sandbox, |record| {
        if record.is_ready() {
            record.phase = Phase::Dead { reason };
        }
    });
    containers?;
    Ok(sandbox.record.persist(&node.db).await?)
}

/// Takes over the exits that the shim knows, and gives the containers one of which it doesn't.
async fn settle_containers(node: &Node, sandbox: &Sandbox) -> Result<(), Error> {
    let containers = node.containers_of(sandbox);
    let told = match sandbox.shim() {
        Ok(shim) => shim.state().await.map_err(Error::from),
        Err(error) => Err(error.into()),
    };
    let observed = match told {
        Ok(state) => container::observe(node, &containers, &state).await,
        Err(error) => {
            info!(sandbox = %sandbox.id, %error, "the shim does not tell the containers' exits");
            Ok(())
        }
    };
    let exit = Exit::with_pod(unix_nanos(), "its pod sandbox was stopped");
    observed.and(container::end_all(node, &containers, &exit).await)
}
