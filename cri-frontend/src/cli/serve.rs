//! `serve`: the frontend itself.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io,
    os::unix::fs::DirBuilderExt,
    path::Path,
    process::ExitCode,
    sync::Arc,
    thread,
    time::Duration,
};

use a3s_box_image::ImageStore;
use a3s_box_network::{Cni, CniError};
use a3s_box_proto::config::Config;
use futures::FutureExt;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::Semaphore,
    time::{Instant, sleep},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{info, warn};
use tracing_subscriber::EnvFilter;

use super::{Configured, Failure};
use crate::{
    clock::boot_id,
    events::Events,
    grpc::{self, socket},
    node::{Node, names::Names, registry::Registry},
    sandbox::network,
    shim::Shims,
    state::{self, StateError},
    streaming::{self, Streaming},
};

/// Calls wait for shims and plugins; two threads are plenty.
const WORKERS: usize = 2;
/// Even a single processor has something to do while a booting VM waits for its disk.
const LEAST_BOOTS: usize = 2;
/// Threads for file operations.
const BLOCKING_THREADS: usize = 16;
/// After a request to end: for calls in progress, of which those that only wait are given up at once. What is half made
/// then is undone by the next frontend.
const LAST_CALLS: Duration = Duration::from_secs(10);
/// Held by the one frontend that works with a directory.
const LOCK: &str = "frontend.lock";
/// A program that a killed frontend had just forked has its locks until it is executed.
const LOCK_PATIENCE: Duration = Duration::from_secs(2);
const LOCK_PAUSE: Duration = Duration::from_millis(10);

/// Serves until SIGTERM or SIGINT.
pub(super) fn serve(configured: &Configured) -> Result<ExitCode, Failure> {
    let (path, config) = configured.load()?;
    let filter = EnvFilter::try_new(&config.log.filter)
        .map_err(|error| format!("configuration {}: log.filter: {error}", path.display()))?;
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).init();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKERS)
        .max_blocking_threads(BLOCKING_THREADS)
        // They stay: it panics where it has none and the kernel gives none (`TasksMax` of the unit, a fork bomb).
        .thread_keep_alive(Duration::MAX)
        .enable_all()
        .build()?;
    runtime.block_on(run(&path, config))?;
    // What still runs now is given up: the next frontend settles it.
    runtime.shutdown_background();
    Ok(ExitCode::SUCCESS)
}

async fn run(path: &Path, config: Config) -> Result<(), Failure> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let _locks = [lock(&config.root_dir, 0o700).await?, lock(&config.state_dir, 0o711).await?];
    let (listener, gate) = socket::listen(&config.cri.socket).await?;
    let (streaming, streams) = streaming::bind(&config.streaming).await?;
    let (node, loaded) = open(path, config, streaming).await?;
    state::reconcile(&node, loaded).await?;
    node.work.spawn(look_after_networks(node.clone()));
    info!(socket = %node.config.cri.socket.display(), "serving");
    let shutdown = node.shutdown.clone();
    tokio::spawn(async move {
        tokio::select! { _ = terminate.recv() => {} _ = interrupt.recv() => {} }
        info!("asked to end; pods go on");
        shutdown.cancel();
    });
    let streaming = tokio::spawn(streaming::serve(node.clone(), streams));
    let served = grpc::serve(node.clone(), listener, gate);
    let overdue = async {
        node.shutdown.cancelled().await;
        sleep(LAST_CALLS).await;
    }
    .shared();
    tokio::select! {
        result = served => result?,
        () = overdue.clone() => warn!("connections are cut while calls are in progress"),
    }
    // It ends with the node's shutdown, which has come.
    if let Err(error) = streaming.await {
        warn!(%error, "the streaming server broke");
    }
    node.work.close();
    tokio::select! {
        () = node.work.wait() => {}
        () = overdue => warn!("work in progress is left to the next frontend"),
    }
    Ok(())
}

/// What an earlier frontend or the host's end may have left, and what may have been done to pods meanwhile.
async fn look_after_networks(node: Arc<Node>) {
    let work = async {
        match node.cni.collect_garbage().await {
            Ok(()) | Err(CniError::NoConfig { .. }) => {}
            Err(error) => warn!(%error, "the network's garbage is not collected (CNI GC)"),
        }
        for sandbox in node.sandboxes.all() {
            network::check(&node, &sandbox).await;
        }
    };
    tokio::select! {
        () = work => {}
        () = node.shutdown.cancelled() => {}
    }
}

/// A node with its stores open, and what they remember of an earlier frontend.
pub async fn open(
    path: &Path,
    config: Config,
    streaming: Streaming,
) -> Result<(Arc<Node>, state::Loaded), Failure> {
    let (db, loaded) = state::open(&config.root_dir.join("state.redb"))?;
    let images =
        ImageStore::open(config.root_dir.join("images"), &config.images, config.helpers.mkfs_erofs.clone())
            .await?;
    let node = Node {
        shims: Shims { program: config.cri.shim.clone(), config_path: path.to_owned() },
        cni: Cni::new(&config.network),
        db,
        images,
        sandboxes: Registry::new("pod sandbox"),
        containers: Registry::new("container"),
        events: Events::default(),
        sandbox_names: Names::default(),
        container_names: Names::default(),
        streaming,
        boot_id: boot_id(),
        boots: Semaphore::new(
            thread::available_parallelism().map_or(LEAST_BOOTS, usize::from).max(LEAST_BOOTS),
        ),
        work: TaskTracker::new(),
        shutdown: CancellationToken::new(),
        config,
    };
    Ok((Arc::new(node), loaded))
}

/// Makes a directory of ours and takes it for this process alone.
async fn lock(dir: &Path, mode: u32) -> Result<File, StateError> {
    let path = dir.join(LOCK);
    let failed = |action| {
        let path = path.clone();
        move |source| StateError::File { action, path, source }
    };
    fs::DirBuilder::new().recursive(true).mode(mode).create(dir).map_err(failed("make the directory of"))?;
    let file =
        OpenOptions::new().create(true).truncate(false).write(true).open(&path).map_err(failed("open"))?;
    let deadline = Instant::now() + LOCK_PATIENCE;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) if Instant::now() < deadline => sleep(LOCK_PAUSE).await,
            Err(TryLockError::WouldBlock) => return Err(StateError::InUse { path }),
            Err(TryLockError::Error(source)) => return Err(failed("lock")(source)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_directory_is_one_frontends() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        let first = lock(&root, 0o700).await.unwrap();
        assert!(matches!(lock(&root, 0o700).await, Err(StateError::InUse { .. })));
        let waiting = async { lock(&root, 0o700).await.unwrap() };
        let leaving = async {
            sleep(LOCK_PATIENCE / 2).await;
            drop(first);
        };
        tokio::join!(waiting, leaving);
    }
}
