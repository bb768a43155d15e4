//! Pod sandboxes: one MicroVM each, owned by its shim.

mod bury;
pub mod list;
mod network;
mod plan;
pub mod record;
pub mod release;
pub mod remove;
pub mod run;
pub mod stop;
mod watch;

use std::{
    path::PathBuf,
    sync::{PoisonError, RwLock},
};

use a3s_box_network::NetworkNamespace;
use a3s_box_proto::{config::Config, ids::SandboxId};
pub use bury::inter;
pub use record::{NetworkMode, Phase, SandboxRecord};
pub use run::undo;
pub use watch::{adopt, find, watch};

use crate::{
    shim::{Shim, ShimError},
    state::Tracked,
    stats::cpu::Meter,
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
    shim: RwLock<Option<Shim>>,
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
            shim: RwLock::default(),
        }
    }

    /// The connection to its shim.
    pub fn shim(&self) -> Result<Shim, ShimError> {
        let shim = self.shim.read().unwrap_or_else(PoisonError::into_inner).clone();
        shim.ok_or_else(|| ShimError::Absent(self.id.clone()))
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
