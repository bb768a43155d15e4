//! Containers: what runs inside a pod's MicroVM.

mod block_device;
mod cpuset;
pub mod create;
mod end;
pub mod exec;
pub mod exec_sync;
mod half_started;
pub mod image_volume;
pub mod list;
mod observe;
mod output;
mod pid_target;
pub mod record;
pub mod remove;
pub mod reopen_log;
pub mod shim_socket;
pub mod start;
pub mod stop;
pub mod update;
mod watch;

use std::{
    path::PathBuf,
    sync::{Arc, atomic::AtomicBool},
};

use a3s_box_proto::ids::{ContainerId, SandboxId};
pub use end::{end_all, read_exits};
use futures::future::join_all;
pub use half_started::settle_all as settle_half_started;
pub use observe::observe;
use oci_spec::runtime::{Process, Spec};
pub use record::{ContainerRecord, ContainerState, Exit};
use serde_json::Value;
use tokio::sync::OnceCell;
pub use watch::watch;

use crate::{
    error::Error,
    node::{Node, files},
    sandbox::Sandbox,
    state::Tracked,
    stats::cpu::Meter,
};

/// The copy of a container's record in its own directory, from which a lost database is made again.
pub const MIRROR: &str = "container.json";
/// The pods' directory of containers.
pub const CONTAINERS: &str = "containers";

/// A container that this frontend knows.
#[derive(Debug)]
pub struct Container {
    /// Its id.
    pub id: ContainerId,
    /// Its pod.
    pub sandbox: SandboxId,
    /// Its directory in the pod's.
    pub bundle: PathBuf,
    /// What is remembered of it.
    pub record: Tracked<ContainerRecord>,
    /// Orders starting and removing it.
    pub lifecycle: tokio::sync::Mutex<()>,
    /// It has had its stop signal.
    asked_to_stop: AtomicBool,
    /// Its processor's use.
    pub cpu: Meter,
    process: OnceCell<Process>,
}

impl Container {
    /// A container as its record says.
    pub fn new(sandbox: &Sandbox, record: ContainerRecord) -> Self {
        Self {
            id: record.id.clone(),
            sandbox: record.sandbox.clone(),
            bundle: sandbox.bundle.join(CONTAINERS).join(record.id.as_str()),
            record: Tracked::new(record),
            lifecycle: tokio::sync::Mutex::default(),
            asked_to_stop: AtomicBool::new(false),
            cpu: Meter::default(),
            process: OnceCell::new(),
        }
    }

    /// Its own process, on which execs are modelled; read once from its specification.
    async fn process(&self) -> Result<&Process, Error> {
        let path = self.bundle.join(create::SPEC);
        let read = || async {
            let spec: Option<Spec> = files::read_json_async(path).await?;
            let process = spec.and_then(|spec| spec.process().clone());
            process.ok_or_else(|| self.wrong_state("has no process in its specification"))
        };
        self.process.get_or_try_init(read).await
    }

    /// Its specification as the shim gets it.
    pub async fn spec(&self) -> Result<Option<Value>, Error> {
        files::read_json_async(self.bundle.join(create::SPEC)).await
    }

    /// The pod that it belongs to.
    pub fn pod(&self, node: &Node) -> Result<Arc<Sandbox>, Error> {
        node.sandboxes.get(self.sandbox.as_str())
    }

    /// An error about its state.
    fn wrong_state(&self, problem: impl Into<String>) -> Error {
        Error::State { what: "container", id: self.id.to_string(), problem: problem.into() }
    }

    /// Refuses unless it runs.
    pub fn require_running(&self, action: &str) -> Result<(), Error> {
        self.record.with(|record| match &record.state {
            ContainerState::Running { .. } => Ok(()),
            other => Err(self.wrong_state(format!("is {}: {action} needs a running one", other.describe()))),
        })
    }
}

/// Writes the records of containers to disk: all that can be written, whatever becomes of one.
pub async fn persist_all(node: &Node, containers: &[Arc<Container>]) -> Result<(), Error> {
    let written = join_all(containers.iter().map(|container| container.record.persist(&node.db))).await;
    Ok(written.into_iter().collect::<Result<(), _>>()?)
}
