//! After a start: the records against what lives.

use std::{
    fs, io,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use futures::{StreamExt, stream};
use serde::de::DeserializeOwned;
use tokio::time::timeout;
use tracing::{error, info, warn};

use super::Loaded;
use crate::{
    container::{
        self, CONTAINERS, Container, ContainerRecord, ContainerState, image_volume, shim_socket::SOCKETS,
    },
    error::Error,
    node::{Node, files},
    sandbox::{self, Phase, Sandbox, SandboxRecord},
    shim::{Connection, ShimError, connect},
};

/// Pods looked at at the same time.
const AT_ONCE: usize = 32;
/// How long the node waits for all of them: a shim that hangs, or a plugin, holds up its own pod only.
const PATIENCE: Duration = Duration::from_secs(3);

/// What to do about a recorded sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// It lives: take over what its shim knows.
    Adopt,
    /// It was ready and its processes are gone.
    Bury(&'static str),
    /// It was never ready: nothing may be left of it.
    Undo,
    /// It is not ready, and waits to be stopped or removed.
    Leave,
    /// Nobody can tell yet.
    KeepAsking,
}

/// What was found at a sandbox's socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Found {
    Live,
    Gone,
    Unclear,
}

fn verdict(phase: &Phase, same_boot: bool, found: Found) -> Verdict {
    match (phase, found) {
        (Phase::Creating, _) => Verdict::Undo,
        (Phase::Dead { .. } | Phase::Stopped, _) => Verdict::Leave,
        // No process outlives a boot, whatever listens at that path now.
        (Phase::Ready, _) if !same_boot => Verdict::Bury("the machine was restarted"),
        (Phase::Ready, Found::Live) => Verdict::Adopt,
        (Phase::Ready, Found::Gone) => Verdict::Bury("the pod's shim ended while no frontend ran"),
        // A live shim is never taken for a dead one.
        (Phase::Ready, Found::Unclear) => Verdict::KeepAsking,
    }
}

/// Fills the node with what was recorded and makes it true; what takes long goes on after this.
pub async fn reconcile(node: &Arc<Node>, loaded: Loaded) -> Result<(), Error> {
    let begun = Instant::now();
    let sandboxes: Vec<SandboxRecord> = decode("pod sandbox", loaded.sandboxes);
    let containers: Vec<ContainerRecord> = decode("container", loaded.containers);
    let recovered = recover(node, &sandboxes, &containers);
    // A full disk keeps no frontend from its start: the copies stay, and the collection below makes room.
    for record in &recovered.sandboxes {
        if let Err(error) = super::Tracked::new(record.clone()).persist(&node.db).await {
            warn!(sandbox = %record.id, %error, "a recovered record is in memory only");
        }
    }
    for record in &recovered.containers {
        if let Err(error) = super::Tracked::new(record.clone()).persist(&node.db).await {
            warn!(container = %record.id, %error, "a recovered record is in memory only");
        }
    }
    for record in sandboxes.into_iter().chain(recovered.sandboxes) {
        enter_sandbox(node, record);
    }
    for record in containers.into_iter().chain(recovered.containers) {
        enter_container(node, record).await;
    }
    if let Err(error) = node.images.collect().await {
        warn!(%error, "removed images take room until the next start");
    }
    let owner = node.clone();
    let settling = node.work.spawn(async move {
        let all = owner.sandboxes.all();
        let count = all.len();
        stream::iter(all).for_each_concurrent(AT_ONCE, |sandbox| settle(&owner, sandbox)).await;
        info!(sandboxes = count, ms = begun.elapsed().as_millis(), "the records agree with what lives");
    });
    if timeout(PATIENCE, settling).await.is_err() {
        warn!("pods are still looked for, or cleaned up");
    }
    Ok(())
}

fn decode<R: DeserializeOwned>(what: &str, rows: Vec<(String, Vec<u8>)>) -> Vec<R> {
    let decoded = rows.into_iter().filter_map(|(key, value)| {
        serde_json::from_slice(&value)
            .inspect_err(|error| error!(what, key, %error, "a record is unreadable and left as it is"))
            .ok()
    });
    decoded.collect()
}

/// What the database does not know.
#[derive(Default)]
struct Recovered {
    sandboxes: Vec<SandboxRecord>,
    containers: Vec<ContainerRecord>,
}

/// Looks for the copies of records in the pods' own directories.
fn recover(node: &Node, sandboxes: &[SandboxRecord], containers: &[ContainerRecord]) -> Recovered {
    let mut recovered = Recovered::default();
    for dir in directories(&node.config.state_dir.join("pods")) {
        let Some(record) = mirror::<SandboxRecord>(&dir.join(sandbox::MIRROR)) else {
            remove_unbegun(&dir);
            continue;
        };
        if !sandboxes.iter().any(|known| known.id == record.id) {
            warn!(sandbox = %record.id, "a pod sandbox without a record is recovered");
            recovered.sandboxes.push(record);
        }
        for dir in directories(&dir.join(CONTAINERS)) {
            let Some(record) = mirror::<ContainerRecord>(&dir.join(container::MIRROR)) else {
                remove_half_made(&dir);
                continue;
            };
            if !containers.iter().any(|known| known.id == record.id) {
                warn!(container = %record.id, "a container without a record is recovered");
                recovered.containers.push(record);
            }
        }
    }
    recovered
}

/// A directory in which a killed frontend had written nothing yet. One with anything else in it is not ours: pods that
/// containerd runs have theirs in the same place.
fn remove_unbegun(dir: &Path) {
    if fs::remove_dir(dir.join(SOCKETS)).is_ok() {
        let removed = fs::remove_dir(dir);
        info!(dir = %dir.display(), ?removed, "a pod's directory was never used");
    }
}

/// What a killed frontend had begun for a container before it wrote the copy of the record, which comes before the record.
fn remove_half_made(dir: &Path) {
    if matches!(dir.join(container::MIRROR).try_exists(), Ok(false)) {
        let removed = fs::remove_dir_all(dir);
        info!(dir = %dir.display(), ?removed, "a container's directory was never used");
    }
}

fn directories(path: &Path) -> Vec<std::path::PathBuf> {
    match fs::read_dir(path) {
        Ok(entries) => entries.filter_map(Result::ok).map(|entry| entry.path()).collect(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(error) => {
            warn!(path = %path.display(), %error, "cannot look for pods");
            Vec::new()
        }
    }
}

fn mirror<R: DeserializeOwned>(path: &Path) -> Option<R> {
    files::read_json(path).unwrap_or_else(|error| {
        warn!(%error, "the copy of a record is unreadable");
        None
    })
}

fn enter_sandbox(node: &Node, record: SandboxRecord) {
    node.sandbox_names.take(&record.unique_name(), record.id.as_str());
    let sandbox = Arc::new(Sandbox::new(&node.config, record));
    node.sandboxes.insert(sandbox.id.as_str(), sandbox.clone());
}

async fn enter_container(node: &Node, mut record: ContainerRecord) {
    if record.state == ContainerState::Starting {
        // Whoever started it is gone; its shim is asked how far that went.
        record.state = ContainerState::Created;
    }
    let Ok(sandbox) = node.sandboxes.get(record.sandbox.as_str()) else {
        warn!(container = %record.id, sandbox = %record.sandbox, "a container without a pod is forgotten");
        let container = super::Tracked::new(record);
        if let Err(error) = container.delete(&node.db).await {
            warn!(%error, "a container without a pod cannot be forgotten");
        }
        return;
    };
    if let Err(error) = node.images.hold(&record.image.id, record.id.as_str()) {
        // It runs on what it has open; only a start would need the image.
        warn!(container = %record.id, %error, "the image of a container is gone");
    }
    if let Err(error) = image_volume::hold(node, &record.id, record.image_volumes.values()) {
        warn!(container = %record.id, %error, "an image that a container mounts is gone");
    }
    node.container_names.take(&record.unique_name(), record.id.as_str());
    let container = Arc::new(Container::new(&sandbox, record));
    node.containers.insert(container.id.as_str(), container.clone());
}

async fn settle(node: &Arc<Node>, sandbox: Arc<Sandbox>) {
    let (phase, boot_id) = sandbox.record.with(|record| (record.phase.clone(), record.boot_id.clone()));
    let connection = match &phase {
        Phase::Ready => connect(&sandbox.id, &sandbox.bundle).await,
        Phase::Creating | Phase::Dead { .. } | Phase::Stopped => Ok(Connection::Gone),
    };
    let verdict = verdict(&phase, boot_id == node.boot_id, found(&connection));
    let settled = match (verdict, connection) {
        (Verdict::Adopt, Ok(Connection::Live(shim))) => {
            if let Err(error) = sandbox::adopt(node, &sandbox, shim).await {
                warn!(sandbox = %sandbox.id, %error, "a pod sandbox is not taken over yet");
                sandbox::find(node, &sandbox);
            }
            Ok(())
        }
        (Verdict::Bury(reason), _) => {
            sandbox::bury_without_shim(node, &sandbox, reason).await;
            Ok(())
        }
        (Verdict::Undo, _) => sandbox::undo(node, &sandbox).await,
        (Verdict::Leave, _) => Ok(()),
        (Verdict::Adopt | Verdict::KeepAsking, connection) => {
            let error = connection.err().map(|error| error.to_string());
            warn!(sandbox = %sandbox.id, error, "the shim does not answer yet");
            sandbox::find(node, &sandbox);
            Ok(())
        }
    };
    if let Err(error) = settled {
        warn!(sandbox = %sandbox.id, ?verdict, %error, "a pod sandbox is not settled");
    }
}

fn found(connection: &Result<Connection, ShimError>) -> Found {
    match connection {
        Ok(Connection::Live(_)) => Found::Live,
        Ok(Connection::Gone) => Found::Gone,
        Err(_) => Found::Unclear,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ready_pod_is_adopted_only_if_its_shim_answers_in_this_boot() {
        let ready = Phase::Ready;
        assert_eq!(verdict(&ready, true, Found::Live), Verdict::Adopt);
        assert!(matches!(verdict(&ready, true, Found::Gone), Verdict::Bury(_)));
        assert!(matches!(verdict(&ready, false, Found::Live), Verdict::Bury(_)));
        assert_eq!(verdict(&ready, true, Found::Unclear), Verdict::KeepAsking);
    }

    #[test]
    fn a_half_made_pod_is_undone_whatever_is_found() {
        for found in [Found::Live, Found::Gone, Found::Unclear] {
            assert_eq!(verdict(&Phase::Creating, true, found), Verdict::Undo);
            assert_eq!(verdict(&Phase::Creating, false, found), Verdict::Undo);
        }
    }

    #[test]
    fn what_is_stopped_is_left_for_its_removal() {
        let dead = Phase::Dead { reason: String::new() };
        for phase in [Phase::Stopped, dead] {
            assert_eq!(verdict(&phase, true, Found::Live), Verdict::Leave);
        }
    }
}
