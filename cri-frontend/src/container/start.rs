//! StartContainer: makes the container in the guest and lets its process run.

use std::sync::Arc;

use a3s_box_proto::stdio::Endpoint;
use tracing::{info, warn};

use super::{Container, Exit, half_started::settle, observe, remove::unmake, watch};
use crate::{
    clock::unix_nanos,
    error::Error,
    node::Node,
    shim::{CreateTask, Shim, Stdin},
};

/// Starts a created container. A failure is the container's exit, with the reason.
pub async fn start(node: &Arc<Node>, id: &str) -> Result<(), Error> {
    let container = node.containers.get(id)?;
    let owner = node.clone();
    node.finish(async move { start_once(&owner, &container).await }).await
}

async fn start_once(node: &Arc<Node>, container: &Arc<Container>) -> Result<(), Error> {
    let sandbox = container.pod(node)?;
    let _pod_stays = sandbox.lifecycle.read().await;
    let _alone = container.lifecycle.lock().await;
    if !sandbox.record.with(crate::sandbox::SandboxRecord::is_ready) {
        return Err(
            container.wrong_state(format!("cannot start: its pod sandbox {} is not ready", sandbox.id))
        );
    }
    let shim = sandbox.shim()?;
    container
        .record
        .update(|record| record.state.begin_start())
        .map_err(|state| container.wrong_state(format!("is {state}: only a created one can be started")))?;
    match launch(node, container, &shim).await {
        Ok(()) => {
            info!(container = %container.id, sandbox = %sandbox.id, "container is started");
            watch(node, container, shim);
            // Last, so that a full disk leaves a watched container.
            Ok(container.record.persist(&node.db).await?)
        }
        Err(cause) => {
            let error = Error::StartFailed { id: container.id.to_string(), source: Box::new(cause) };
            warn!(%error, "container failed to start");
            if let Err(unwritten) = give_up(node, container, &shim, &error).await {
                warn!(container = %container.id, error = %unwritten, "its failure is in memory only");
            }
            Err(error)
        }
    }
}

async fn launch(node: &Node, container: &Arc<Container>, shim: &Shim) -> Result<(), Error> {
    let record = container.record.get();
    let image = node
        .images
        .held(container.id.as_str())
        .ok_or_else(|| Error::NotFound { what: "image", id: record.image.id.clone() })?;
    let output = record.log_path.as_ref().map(|path| Endpoint::CriLog(path.into()).to_string());
    let task = CreateTask {
        id: &container.id,
        bundle: &container.bundle,
        layers: &image.layers,
        terminal: record.config.tty,
        output: output.unwrap_or_default(),
        run_as: &record.run_as,
        stdin: match (record.config.stdin, record.config.stdin_once) {
            (false, _) => Stdin::Closed,
            (true, false) => Stdin::Open,
            (true, true) => Stdin::Once,
        },
    };
    match shim.create(&task).await {
        Err(error) if error.is_already_exists() => {
            if settle(node, container, shim).await? {
                return Ok(());
            }
            shim.create(&task).await?;
        }
        result => result?,
    }
    shim.start(&container.id, None).await?;
    let begun = unix_nanos();
    // For the user that the guest found, and the true time.
    match shim.state().await {
        Ok(state) => observe(node, std::slice::from_ref(container), &state).await?,
        Err(error) => {
            warn!(container = %container.id, %error, "the shim does not tell the container's state");
        }
    }
    node.change_container(container, |record| {
        if !record.state.is_running() {
            record.state.run(begun);
        }
    });
    Ok(())
}

/// The container ends where it is; the guest forgets it, the records keep it.
async fn give_up(node: &Node, container: &Container, shim: &Shim, error: &Error) -> Result<(), Error> {
    if let Err(error) = unmake(shim, container).await {
        warn!(container = %container.id, %error, "a container that failed to start cannot be unmade");
    }
    let exit = Exit::start_error(unix_nanos(), error.to_string());
    node.change_container(container, |record| record.state.exit(exit));
    Ok(container.record.persist(&node.db).await?)
}
