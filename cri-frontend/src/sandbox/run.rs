//! RunPodSandbox: from a request to a configured MicroVM, or to nothing at all.

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use a3s_box_proto::{cri::PodSandboxConfig, ids::SandboxId};
use tracing::{info, warn};

use super::{
    MIRROR, NetworkMode, Phase, Sandbox, SandboxRecord, network,
    plan::Plan,
    record::{display_name, unique_name},
    release, watch,
};
use crate::{
    clock::unix_nanos,
    container::shim_socket::SOCKETS,
    error::Error,
    events::Kind,
    node::{
        Node, files,
        ids::new_id,
        names::{Claim, Reservation, answer},
    },
    shim::{Connection, Shim, ShimError, connect},
    undo::UndoStack,
};

/// For each step that undoes a failed attempt.
const UNDO_BOUND: Duration = Duration::from_secs(90);

/// Makes a pod sandbox. While one call works on a name, another for the same name gets the same answer.
pub async fn run(node: &Arc<Node>, config: PodSandboxConfig, handler: String) -> Result<String, Error> {
    let plan = Plan::new(&node.config, config, handler)?;
    let id = new_id()?;
    let name = unique_name(&plan.config);
    match node.sandbox_names.claim(&name, &id) {
        Claim::Taken { id } => Err(Error::Reserved { what: "pod sandbox", name, id }),
        Claim::Making { outcome, .. } => answer(outcome).await,
        Claim::Granted(reservation) => {
            let outcome = reservation.outcome();
            let sandbox = sandbox(node, plan, &id)?;
            node.work.spawn(make(node.clone(), sandbox, reservation));
            answer(outcome).await
        }
    }
}

fn sandbox(node: &Node, plan: Plan, id: &str) -> Result<Arc<Sandbox>, Error> {
    let id: SandboxId = id.parse().map_err(|error| Error::Invalid(format!("a new id is no id: {error}")))?;
    let record = SandboxRecord {
        id,
        config: plan.config,
        handler: plan.handler,
        created_at: unix_nanos(),
        boot_id: node.boot_id.clone(),
        network: plan.network,
        ips: Vec::new(),
        phase: Phase::Creating,
    };
    Ok(Arc::new(Sandbox::new(&node.config, record)))
}

/// Runs to its end whether or not a client still waits.
async fn make(node: Arc<Node>, sandbox: Arc<Sandbox>, mut reservation: Reservation) {
    let begun = Instant::now();
    let pod = sandbox.record.with(|record| display_name(&record.config));
    let _exclusive = sandbox.lifecycle.write().await;
    node.sandboxes.insert(sandbox.id.as_str(), sandbox.clone());
    let mut undo = UndoStack::default();
    match bring_up(&node, &sandbox, &mut undo).await {
        Ok(shim) => {
            let ms = begun.elapsed().as_millis();
            info!(sandbox = %sandbox.id, pod, ms, "pod sandbox is ready");
            node.tell(sandbox.id.as_str(), &sandbox, &[Kind::Created, Kind::Started]);
            reservation.keep();
            reservation.finish(Ok(sandbox.id.to_string()));
            watch(&node, &sandbox, shim);
        }
        Err((step, cause)) => {
            let error = Error::at(pod.as_str(), step)(cause);
            warn!(sandbox = %sandbox.id, %error, "pod sandbox failed");
            if !take_down(&node, &sandbox, undo, &error).await {
                reservation.keep();
            }
            reservation.finish(Err(Arc::new(error)));
        }
    }
}

/// True if nothing of the attempt is left.
async fn take_down(node: &Node, sandbox: &Sandbox, undo: UndoStack, cause: &Error) -> bool {
    let mut clean = true;
    for left in undo.undo(UNDO_BOUND).await {
        clean = false;
        warn!(sandbox = %sandbox.id, step = left.step, error = %left.error, "a failed pod sandbox is not fully undone");
    }
    if clean {
        match sandbox.record.delete(&node.db).await {
            Ok(()) => {
                node.sandboxes.remove(sandbox.id.as_str());
                return true;
            }
            Err(error) => warn!(sandbox = %sandbox.id, %error, "cannot forget a failed pod sandbox"),
        }
    }
    // It stays, not ready, so that StopPodSandbox tries again.
    let reason = cause.to_string();
    if let Err(error) = sandbox.record.commit(&node.db, |record| record.phase = Phase::Dead { reason }).await
    {
        warn!(sandbox = %sandbox.id, %error, "cannot record a failed pod sandbox");
    }
    false
}

/// Undoes what a killed frontend had half made; nobody else works on it.
pub async fn undo(node: &Arc<Node>, sandbox: &Arc<Sandbox>) -> Result<(), Error> {
    let _exclusive = sandbox.lifecycle.write().await;
    let mut undo = UndoStack::default();
    undo.push("removing its directories", release::directories(sandbox.clone()));
    undo.push("releasing its network", network::release(node.clone(), sandbox.clone()));
    undo.push("ending its shim", release::shim(node.clone(), sandbox.clone()));
    let cause = Error::Abandoned("the frontend ended while the pod was made".into());
    if take_down(node, sandbox, undo, &cause).await {
        let name = sandbox.record.with(SandboxRecord::unique_name);
        node.sandbox_names.free(&name, sandbox.id.as_str());
    }
    Ok(())
}

type Failed = (&'static str, Error);

fn step<E: Into<Error>>(step: &'static str) -> impl FnOnce(E) -> Failed {
    move |error| (step, error.into())
}

async fn bring_up(node: &Arc<Node>, sandbox: &Arc<Sandbox>, undo: &mut UndoStack) -> Result<Shim, Failed> {
    // With a copy of the record, from which a frontend that finds nothing else can undo all the rest.
    undo.push("removing its directories", release::directories(sandbox.clone()));
    directories(sandbox).await.map_err(step("making its directories"))?;
    undo.push("removing its network namespace", network::remove_namespace(sandbox.clone()));
    network::make_namespace(node, sandbox).await.map_err(step("making its network namespace"))?;
    undo.push("releasing its network (CNI DEL)", network::detach(node.clone(), sandbox.clone()));
    undo.push("ending its shim", release::shim(node.clone(), sandbox.clone()));
    // Both are waited for, whatever the other's fate: what is cut short half-way cannot be undone properly.
    let (recorded, attached, booted) =
        tokio::join!(sandbox.record.persist(&node.db), attach(node, sandbox), boot(node, sandbox));
    recorded.map_err(step("writing its record"))?;
    let shim = booted?;
    attached.map_err(step("attaching it to the network (CNI ADD)"))?;
    shim.start_sandbox().await.map_err(step("configuring its MicroVM (StartSandbox)"))?;
    sandbox.describe(&shim.state().await.map_err(step("asking for its state"))?);
    sandbox.record.update(|record| record.phase = Phase::Ready);
    let (mirrored, recorded) = tokio::join!(mirror(sandbox), sandbox.record.persist(&node.db));
    mirrored.map_err(step("writing its record"))?;
    recorded.map_err(step("writing its record"))?;
    Ok(shim)
}

async fn directories(sandbox: &Sandbox) -> Result<(), Error> {
    let logs = sandbox.record.with(|record| PathBuf::from(&record.config.log_directory));
    if !logs.as_os_str().is_empty() {
        files::make_public_dir(logs).await?;
    }
    files::make_private_dir(sandbox.bundle.join(SOCKETS)).await?;
    mirror(sandbox).await
}

/// Writes the copy of its record.
pub(super) async fn mirror(sandbox: &Sandbox) -> Result<(), Error> {
    files::write_json(sandbox.bundle.join(MIRROR), &sandbox.record.get()).await
}

async fn attach(node: &Node, sandbox: &Sandbox) -> Result<(), Error> {
    if sandbox.record.with(|record| record.network) == NetworkMode::None {
        return Ok(());
    }
    let ips = network::attach(node, sandbox).await?;
    sandbox.record.update(|record| record.ips = ips);
    Ok(())
}

async fn boot(node: &Node, sandbox: &Sandbox) -> Result<Shim, Failed> {
    let Some(Ok(_turn)) = node.shutdown.run_until_cancelled(node.boots.acquire()).await else {
        return Err(("waiting for other MicroVMs to boot", Error::Ending("the pod".into())));
    };
    node.shims.start(&sandbox.id, &sandbox.bundle).await.map_err(step("starting its shim"))?;
    let shim = match connect(&sandbox.id, &sandbox.bundle).await.map_err(step("connecting to its shim"))? {
        Connection::Live(shim) => shim,
        Connection::Gone => {
            let gone = ShimError::Lost { call: "its start", reason: "nobody listens at its socket".into() };
            return Err(step("connecting to its shim")(gone));
        }
    };
    sandbox.connect(shim.clone());
    let config = sandbox.record.with(|record| network::for_shim(&record.config));
    let timeout = Duration::from_secs(node.config.vm.boot_timeout_s);
    shim.create_sandbox(&sandbox.bundle, sandbox.netns.path(), &config, timeout)
        .await
        .map_err(step("booting its MicroVM (CreateSandbox)"))?;
    Ok(shim)
}
