//! `serve`: the server that `start` leaves behind, as long as the pod lives.

use std::{
    fs::{File, OpenOptions},
    io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::net::UnixListener as StdListener,
    },
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use a3s_box_proto::{config::Config, ids::SandboxId, shim_ttrpc::create_control};
use containerd_shim_protos::{sandbox_async::create_sandbox, shim_async::create_task};
use rustix::{
    fs::Mode,
    process::{Resource, Rlimit, getrlimit, setrlimit, umask},
    stdio::{dup2_stderr, dup2_stdin, dup2_stdout},
};
use tokio::{
    net::UnixListener,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::info;
use ttrpc::asynchronous::{Server, transport::Listener};

use super::{Arguments, log};
use crate::{
    caller::Caller,
    cgroup::{Origin, stand_behind_parent},
    error::{Error, Result, Step},
    pod::{Pod, layout::Layout},
    service::{control::ControlService, sandbox::SandboxService, task::TaskService},
    sys::{
        namespace::{HostNamespace, enter_own_mounts},
        thread::blocking,
    },
    vm,
};

/// For answers that are still on their way when the shim ends.
const LAST_ANSWERS: Duration = Duration::from_secs(2);
/// containerd's client, when it finds an answer and the end of the connection at once, may take note of the end only,
/// and fail the removal of the pod. It closes the connection itself when it has the answer.
const CONTAINERD_READS: Duration = Duration::from_secs(1);

/// Serves until the pod is shut down.
///
/// # Errors
/// The server cannot be set up.
pub fn run(arguments: &Arguments, config: Config) -> Result<()> {
    let id: SandboxId = arguments.id.parse()?;
    let layout = Layout::new(&config, &id);
    let bundle = arguments.bundle().step(|| "finding the bundle".into())?;
    log::begin(&bundle, layout.log(), &config.log.filter, arguments.debug)
        .step(|| "opening the log".into())?;
    let outcome = serve(id, Caller::of_this_process(&arguments.namespace), config, layout);
    if let Err(error) = &outcome {
        tracing::error!(%error, "the shim failed");
    }
    outcome
}

fn serve(id: SandboxId, caller: Caller, config: Config, layout: Layout) -> Result<()> {
    let (listener, _lock) = take_inherited().step(|| "taking the listening socket".into())?;
    limit_this_process();
    let host = HostNamespace::capture().step(|| "remembering the host's mounts".into())?;
    let origin = Origin::capture().step(|| "remembering our cgroups".into())?;
    // While there is one thread only.
    enter_own_mounts(&needed(&config, &layout)).step(|| "making a mount namespace".into())?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(8)
        .thread_stack_size(256 * 1024)
        // They stay: it panics, and the pod ends, where it has none and the kernel gives none (`pids.max`).
        .thread_keep_alive(Duration::MAX)
        .build()
        .step(|| "making the runtime".into())?;
    let result = runtime.block_on(async {
        blocking(|| Ok(())).await.step(|| "starting the first of the runtime's threads".into())?;
        let shutdown = CancellationToken::new();
        let by_containerd = caller.is_containerd();
        let pod = Arc::new(Pod::new(id, caller, config, layout, host, origin, shutdown.clone()));
        let mut server = server(listener, &pod)?;
        server.start().await.map_err(ttrpc_failed)?;
        end_standard_error().step(|| "leaving what started us".into())?;
        info!("serving");
        shutdown.cancelled().await;
        if by_containerd {
            sleep(CONTAINERD_READS).await;
        }
        // Answers that are under way arrive; who waits for more has waited enough.
        let _ = timeout(LAST_ANSWERS, server.shutdown()).await;
        info!("the end");
        Ok(())
    });
    runtime.shutdown_timeout(LAST_ANSWERS);
    result
}

fn server(listener: StdListener, pod: &Arc<Pod>) -> Result<Server> {
    listener.set_nonblocking(true).step(|| "setting the socket up".into())?;
    let listener = UnixListener::from_std(listener).step(|| "setting the socket up".into())?;
    Ok(Server::new()
        .add_listener(Listener::from(listener))
        .register_service(create_sandbox(Arc::new(SandboxService(pod.clone()))))
        .register_service(create_task(Arc::new(TaskService(pod.clone()))))
        .register_service(create_control(Arc::new(ControlService(pod.clone())))))
}

fn ttrpc_failed(error: ttrpc::Error) -> Error {
    Error::Host { step: "starting to serve".into(), source: io::Error::other(error) }
}

/// Takes the listening socket from standard input and the lock from standard output, where `start` left them, and
/// puts something harmless there.
fn take_inherited() -> io::Result<(StdListener, OwnedFd)> {
    let listener = io::stdin().as_fd().try_clone_to_owned()?;
    let lock = io::stdout().as_fd().try_clone_to_owned()?;
    let nothing = nothing()?;
    dup2_stdin(&nothing)?;
    dup2_stdout(&nothing)?;
    Ok((listener.into(), lock))
}

/// `start` hears by it that we serve.
fn end_standard_error() -> io::Result<()> {
    Ok(dup2_stderr(nothing()?)?)
}

fn nothing() -> io::Result<File> {
    OpenOptions::new().read(true).write(true).open("/dev/null")
}

/// Small and undemanding: there is one of these for each pod.
fn limit_this_process() {
    // SAFETY: changes a setting of the allocator, before there are other threads.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
        libc::mallopt(libc::M_TRIM_THRESHOLD, 128 * 1024);
    }
    umask(Mode::from_raw_mode(0o022));
    if let Err(error) = stand_behind_parent() {
        tracing::warn!(%error, "oom_score_adj stays as the frontend's");
    }
    // virtiofsd inherits it, and holds a descriptor for what the guest has open.
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, ..limit };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::warn!(%error, "the limit of open files stays as it is");
    }
}

/// What must stay reachable in our mount namespace: our own files, the programs and what they load. All paths that
/// callers name are looked up in the host's.
fn needed(config: &Config, layout: &Layout) -> Vec<PathBuf> {
    let fixed =
        ["/", "/proc", "/dev", "/sys", "/etc", "/usr", "/lib", "/lib64", "/bin", "/sbin"].map(PathBuf::from);
    let ours = [
        &layout.run,
        &config.state_dir,
        &config.root_dir,
        vm::program(&config.vm).1,
        &config.vm.kernel,
        &config.vm.initramfs,
        &config.helpers.virtiofsd,
        &config.helpers.vhost_device_vsock,
        &config.helpers.mkfs_ext4,
    ];
    let resolve = |path: &PathBuf| existing(path);
    fixed.iter().chain(ours).map(resolve).collect()
}

/// The path without symlinks, as far as it exists.
fn existing(path: &Path) -> PathBuf {
    path.ancestors().find_map(|ancestor| std::fs::canonicalize(ancestor).ok()).unwrap_or_else(|| "/".into())
}
