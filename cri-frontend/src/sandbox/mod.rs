//! Pod sandboxes: one MicroVM each, owned by its shim.

mod bury;
pub mod list;
pub mod network;
mod plan;
pub mod record;
pub mod release;
pub mod remove;
pub mod run;
pub mod stop;
pub mod update;
mod watch;

use std::{
    path::PathBuf,
    sync::{PoisonError, RwLock},
};

use a3s_box_network::NetworkNamespace;
use a3s_box_proto::{config::Config, ids::SandboxId, shim::StateResponse};
pub use bury::bury_without_shim;
pub use record::{NetworkMode, Phase, SandboxRecord};
pub use run::undo;
use serde::Serialize;
pub use watch::{adopt, find, watch};

use crate::{
    shim::{Shim, ShimError},
    state::Tracked,
    stats::{cpu::Meter, hearing::Hearing},
};

/// The copy of a sandbox's record in its own directory, from which a lost database is made again.
pub const MIRROR: &str = "sandbox.json";

/// A pod sandbox that this frontend knows.
#[derive(Debug)]
pub struct Sandbox {
    /// Its id.
    pub id: SandboxId,
    /// Its directory below the state directory; the shim's working directory.
    pub bundle: PathBuf,
    /// Its scratch disk's directory.
    pub root: PathBuf,
    /// Where its network namespace is bound.
    pub netns: NetworkNamespace,
    /// What is remembered of it.
    pub record: Tracked<SandboxRecord>,
    /// Orders making, stopping and removing it (writers) and what needs it to stay ready (readers).
    pub lifecycle: tokio::sync::RwLock<()>,
    /// Its processor's use.
    pub cpu: Meter,
    /// Whether its guest answers.
    pub hearing: Hearing,
    shim: RwLock<Option<Shim>>,
    vm: RwLock<Option<Vm>>,
}

/// A pod's MicroVM, as its shim described it when it was ready.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Vm {
    /// The VMM's process on the host.
    pub pid: u32,
    /// "kvm" or "tcg".
    pub accelerator: String,
    /// Virtual processors.
    pub vcpus: u32,
    /// Its memory.
    pub memory_bytes: u64,
    /// Release of its kernel.
    pub kernel: String,
    /// The agent's version.
    pub agent_version: String,
}

impl From<&StateResponse> for Vm {
    fn from(state: &StateResponse) -> Self {
        Self {
            pid: state.vmm_pid,
            accelerator: state.accelerator.clone(),
            vcpus: state.vcpus,
            memory_bytes: state.memory_bytes,
            kernel: state.kernel_release.clone(),
            agent_version: state.agent_version.clone(),
        }
    }
}

impl Sandbox {
    /// A sandbox as its record says, not connected to a shim yet.
    pub fn new(config: &Config, record: SandboxRecord) -> Self {
        Self {
            bundle: config.pod_state_dir(&record.id),
            root: config.pod_root_dir(&record.id),
            netns: NetworkNamespace::at(&config.netns_dir, &record.id),
            id: record.id.clone(),
            record: Tracked::new(record),
            lifecycle: tokio::sync::RwLock::default(),
            cpu: Meter::default(),
            hearing: Hearing::default(),
            shim: RwLock::default(),
            vm: RwLock::default(),
        }
    }

    /// The connection to its shim.
    pub fn shim(&self) -> Result<Shim, ShimError> {
        let shim = self.shim.read().unwrap_or_else(PoisonError::into_inner).clone();
        shim.ok_or_else(|| ShimError::Absent(self.id.clone()))
    }

    /// Its MicroVM, once it was ready.
    pub fn vm(&self) -> Option<Vm> {
        self.vm.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Keeps what the shim says of the MicroVM.
    pub fn describe(&self, state: &StateResponse) {
        *self.vm.write().unwrap_or_else(PoisonError::into_inner) = Some(state.into());
    }

    /// Keeps a connection for all who need it.
    pub fn connect(&self, shim: Shim) {
        *self.shim.write().unwrap_or_else(PoisonError::into_inner) = Some(shim);
    }

    /// Gives up the connection.
    pub fn disconnect(&self) -> Option<Shim> {
        self.shim.write().unwrap_or_else(PoisonError::into_inner).take()
    }
}
