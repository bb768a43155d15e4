//! PID 1 of a pod's MicroVM: sets up the guest, runs the pod's containers, and is the host's hand inside.
//!
//! ```text
//! kernel ▶ init/ (mounts, cgroups, devices) ▶ zygote forked ▶ runtime ▶ services listen ▶ "ready" to the host
//!
//! host ── ttrpc, vsock CONTROL ──▶ service/ ▶ container/ ▶ rootfs/ volume/ ▶ process/zygote ▶ libcontainer
//! host ── frames, vsock STREAM ──▶ service/streams ▶ process/streams ◀── pipes and terminals of processes
//! ```

mod cgroup;
mod clock;
mod cmdline;
mod container;
mod error;
mod init;
mod paths;
mod process;
mod rootfs;
mod sandbox;
mod service;
mod stream;
mod sys;
mod volume;

use std::{convert::Infallible, future::pending, io, sync::Arc, time::Duration};

use a3s_box_proto::{agent_ttrpc::create_agent, ports};
use container::Containers;
use error::{Failed, Step};
use init::{cgroup as cgroups, console, entropy, limits, mounts, shutdown, sysctl};
use process::{
    reaper::Reaper,
    zygote::{self, Zygote},
};
use rootfs::{Storage, scratch::Scratch};
use sandbox::Sandbox;
use service::{Agent, listener::HostListener};

/// The shim holds one control connection, two for a moment when it dials again.
const MOST_CONTROL_CONNECTIONS: usize = 32;
/// Threads for steps that wait for disks.
const MOST_BLOCKING_THREADS: usize = 32;
/// The answer to Shutdown is on its way to the host while the guest waits that long.
const LAST_WORDS: Duration = Duration::from_millis(10);

fn main() {
    if std::process::id() != 1 {
        eprintln!("a3s-box-guest is the first process of a MicroVM's guest and runs nowhere else");
        std::process::exit(2);
    }
    console::install_panic_hook();
    match run() {
        Ok(never) => match never {},
        Err(error) => console::fatal(&error),
    }
}

fn run() -> Result<Infallible, Failed> {
    // Before much of it has run: an emulated processor translates it anew.
    let collapsed = sys::text::collapse();
    mounts::enter_root()?;
    let line = std::fs::read_to_string("/proc/cmdline").step(|| "read /proc/cmdline".to_owned())?;
    let (options, mistakes) = cmdline::Options::parse(&line);
    console::start_logging(options.log).step(|| "log to the console".to_owned())?;
    for mistake in mistakes {
        tracing::warn!("unknown setting on the kernel's command line: {mistake}");
    }
    if let Err(error) = collapsed {
        tracing::warn!("move the agent's code into huge pages: {error}");
    }
    limits::raise()?;
    // SAFETY: no thread has been started yet.
    let zygote = unsafe { zygote::spawn() }?;
    mounts::attach_devices()?;
    let scratch = Scratch::find(options.scratch_in_memory);
    cgroups::prepare()?;
    sysctl::set_defaults();
    if let Err(error) = entropy::ensure() {
        tracing::warn!("{error}");
    }
    // One thread: the guest often has one processor, and a hand-over between threads costs more than it saves.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(MOST_BLOCKING_THREADS)
        // They stay: it panics, and the guest ends, where it has none and the kernel gives none (`kernel.threads-max`).
        .thread_keep_alive(Duration::MAX)
        .build()
        .step(|| "start the runtime".to_owned())?;
    runtime.block_on(serve(zygote, Storage::new(scratch)))
}

async fn serve(zygote: Zygote, storage: Storage) -> Result<Infallible, Failed> {
    let reaper = Arc::new(Reaper::default());
    let zygote_end = {
        let (_, end) = reaper.launch().claim(zygote.pid()).step(|| "watch the zygote".to_owned())?;
        end
    };
    let reaping = tokio::spawn(Arc::clone(&reaper).run());
    let containers = Arc::new(Containers::new(zygote, reaper, storage));
    let sandbox = Arc::new(Sandbox::default());
    let streams = service::streams::bind()?;
    let control = HostListener::bind(ports::CONTROL, MOST_CONTROL_CONNECTIONS)?;
    let agent = Agent {
        containers: Arc::clone(&containers),
        sandbox: Arc::clone(&sandbox),
        volumes: Arc::default(),
        clock: Arc::default(),
    };
    let mut server = ttrpc::asynchronous::Server::new()
        .add_listener(into_ttrpc(control))
        .register_service(create_agent(Arc::new(agent)));
    server.start().await.map_err(|error| Failed::because("start the control service", error.to_string()))?;
    let streaming = tokio::spawn(service::streams::serve(streams, containers));
    let _first_connection = service::ready::announce().await?;
    // A line on an emulated serial port costs a millisecond; what an ordinary pod does, the shim logs.
    tracing::debug!(version = env!("CARGO_PKG_VERSION"), "ready");
    let mut zygote_end = zygote_end;
    tokio::select! {
        () = sandbox.done() => {
            tokio::time::sleep(LAST_WORDS).await;
            shutdown::power_off()
        }
        _ = zygote_end.wait_for(Option::is_some) => {
            Err(Failed::because("make containers", "the zygote has ended"))
        }
        ended = reaping => Err(Failed::because("reap children", format!("{ended:?}"))),
        ended = streaming => Err(Failed::because("serve streams", format!("{ended:?}"))),
        never = pending::<Infallible>() => match never {},
    }
}

/// Connections of the host as ttrpc takes them.
fn into_ttrpc(listener: HostListener) -> ttrpc::asynchronous::transport::Listener {
    ttrpc::asynchronous::transport::Listener::new(futures::stream::unfold(listener, |listener| async {
        let connection = listener.accept().await;
        Some((io::Result::Ok(connection), listener))
    }))
}
