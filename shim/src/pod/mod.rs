//! The pod that this shim serves: one MicroVM, its containers, and all that they hold on the host.

pub mod annotations;
mod attach;
pub mod boot;
mod configure;
pub mod container;
pub mod container_spec;
mod cpusets;
mod create;
mod dns;
pub mod exec;
pub mod exit;
mod forward;
mod hang_up;
mod heartbeat;
mod holdings;
pub mod layout;
mod loopback;
mod oom_scores;
pub mod process;
pub mod record;
mod resources;
pub mod sandbox;
mod size;
pub mod spec;
mod stop;
pub mod tasks;
mod update;
mod watch;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::SystemTime,
};

use a3s_box_proto::{
    config::Config,
    ids::{ContainerId, SandboxId},
};
use tokio::sync::{Semaphore, watch as channel};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    caller::Caller,
    cgroup::Origin,
    error::{Error, Result},
    sys::namespace::HostNamespace,
};
use layout::Layout;
use sandbox::Sandbox;
use tasks::Slot;

/// How far the pod has come. Each has what exists then.
#[derive(Clone)]
pub enum Phase {
    /// Nothing was asked for.
    New,
    /// The VM boots.
    Booting,
    /// The VM is up, and not configured.
    Created(Arc<Sandbox>),
    /// Containers may run.
    Ready(Arc<Sandbox>),
    /// The VM has ended.
    Stopped(Arc<Ended>),
}

/// An end of the VM.
pub struct Ended {
    /// Why, where it ended on its own; else empty.
    pub message: String,
    /// When.
    pub at: SystemTime,
    /// What ran; none where it never came up.
    pub sandbox: Option<Arc<Sandbox>>,
}

impl Phase {
    /// The word that errors use.
    pub fn name(&self) -> &'static str {
        match self {
            Self::New => "not created",
            Self::Booting => "booting",
            Self::Created(_) => "not started",
            Self::Ready(_) => "ready",
            Self::Stopped(_) => "stopped",
        }
    }
}

/// The pod.
pub struct Pod {
    /// Its id.
    pub id: SandboxId,
    /// Who started the shim.
    caller: Caller,
    /// The node's configuration.
    pub config: Config,
    /// Its paths.
    pub layout: Layout,
    host: HostNamespace,
    origin: Origin,
    /// Held by whoever changes the phase.
    lifecycle: tokio::sync::Mutex<()>,
    phase: channel::Sender<Phase>,
    tasks: Mutex<BTreeMap<ContainerId, Slot>>,
    /// Connections that are forwarded into it.
    forwards: Arc<Semaphore>,
    /// What carries bytes for clients.
    carriers: TaskTracker,
    /// Cancelled when the pod is to be stopped: ends a boot.
    stop: CancellationToken,
    /// Cancelled when the shim is to end.
    shutdown: CancellationToken,
}

impl Pod {
    /// A pod of which nothing exists yet.
    pub fn new(
        id: SandboxId,
        caller: Caller,
        config: Config,
        layout: Layout,
        host: HostNamespace,
        origin: Origin,
        shutdown: CancellationToken,
    ) -> Self {
        Self {
            id,
            caller,
            config,
            layout,
            host,
            origin,
            lifecycle: tokio::sync::Mutex::default(),
            phase: channel::Sender::new(Phase::New),
            tasks: Mutex::default(),
            forwards: Arc::new(Semaphore::new(forward::MOST_FORWARDS)),
            carriers: TaskTracker::new(),
            stop: CancellationToken::new(),
            shutdown,
        }
    }

    /// How far it has come.
    pub fn phase(&self) -> Phase {
        self.phase.borrow().clone()
    }

    /// Waits for the VM's end.
    pub async fn ended(&self) -> Arc<Ended> {
        let mut phase = self.phase.subscribe();
        loop {
            if let Phase::Stopped(ended) = &*phase.borrow_and_update() {
                return ended.clone();
            }
            // The sender is this pod, which is borrowed.
            let _ = phase.changed().await;
        }
    }

    /// Whether there is no VM: it has ended, or never came up.
    pub fn has_no_vm(&self) -> bool {
        matches!(*self.phase.borrow(), Phase::New | Phase::Stopped(_))
    }

    /// An error that says how far the pod has come, and why its VM has ended.
    fn wrong_phase(&self, action: &'static str) -> Error {
        let state = match &*self.phase.borrow() {
            Phase::Stopped(ended) if !ended.message.is_empty() => format!("stopped ({})", ended.message),
            phase => phase.name().to_owned(),
        };
        Error::State { object: format!("pod {}", self.id), state, action }
    }

    /// Carries bytes for a client, until the shim's end at most.
    fn carry(&self, work: impl Future<Output = ()> + Send + 'static) {
        self.carriers.spawn(self.shutdown.clone().run_until_cancelled_owned(work));
    }

    fn enter(&self, phase: Phase) {
        self.phase.send_replace(phase);
    }

    /// Containers may run from now on. Not where the VM has ended meanwhile: its watcher waits for nobody to say so.
    fn enter_ready(&self, sandbox: &Arc<Sandbox>) -> Result<()> {
        let entered = self.phase.send_if_modified(|phase| {
            let is_up = matches!(phase, Phase::Created(_));
            if is_up {
                *phase = Phase::Ready(sandbox.clone());
            }
            is_up
        });
        if entered { Ok(()) } else { Err(self.wrong_phase("start")) }
    }
}
