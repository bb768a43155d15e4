//! What all of the frontend's work shares: the node's pods, containers, images and records.

pub mod blocking;
pub mod files;
pub mod health;
pub mod ids;
pub mod labels;
pub mod names;
mod own_thread;
pub mod registry;

use std::{path::Path, sync::Arc};

use a3s_box_image::ImageStore;
use a3s_box_network::Cni;
use a3s_box_proto::config::{CgroupDriver, Config};
use tokio::sync::Semaphore;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::{names::Names, registry::Registry};
use crate::{
    container::Container, error::Error, events::Events, sandbox::Sandbox, shim::Shims, state::Db,
    streaming::Streaming,
};

/// The node, as this frontend knows it.
#[derive(Debug)]
pub struct Node {
    /// How the node is set up.
    pub config: Config,
    /// How shims are run.
    pub shims: Shims,
    /// The records.
    pub db: Db,
    /// The images.
    pub images: ImageStore,
    /// The pod network.
    pub cni: Cni,
    /// All pod sandboxes.
    pub sandboxes: Registry<Sandbox>,
    /// All containers.
    pub containers: Registry<Container>,
    /// What happens to both.
    pub events: Events,
    /// Names of pod sandboxes.
    pub sandbox_names: Names,
    /// Names of containers.
    pub container_names: Names,
    /// Who may come for an exec, attach or port-forward.
    pub streaming: Streaming,
    /// Which boot of the machine this is.
    pub boot_id: String,
    /// VMs that may boot at the same time: more of them would only make each one slower, past its timeout.
    pub boots: Semaphore,
    /// Work that a client's leaving must not cut short; the frontend waits for it before it ends.
    pub work: TaskTracker,
    /// The frontend is asked to end.
    pub shutdown: CancellationToken,
}

impl Node {
    /// Does work to its end, whether or not its caller still waits.
    pub async fn finish<T, F>(&self, work: F) -> Result<T, Error>
    where
        F: Future<Output = Result<T, Error>> + Send + 'static,
        T: Send + 'static,
    {
        match self.work.spawn(work).await {
            Ok(result) => result,
            Err(ended) => Err(Error::Abandoned(ended.to_string())),
        }
    }

    /// Runs a watcher until it has seen enough or the frontend ends.
    pub fn watch<F>(self: &Arc<Self>, watcher: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let shutdown = self.shutdown.clone();
        tokio::spawn(async move { shutdown.run_until_cancelled(watcher).await });
    }

    /// Whether systemd makes the pods' cgroups.
    pub fn has_cgroups_of_systemd(&self) -> bool {
        match self.config.cri.cgroup_driver {
            CgroupDriver::Systemd => true,
            CgroupDriver::Cgroupfs => false,
            // As `sd_booted(3)` has it.
            CgroupDriver::Auto => Path::new("/run/systemd/system").is_dir(),
        }
    }

    /// The containers of a pod.
    pub fn containers_of(&self, sandbox: &Sandbox) -> Vec<Arc<Container>> {
        self.containers.select(|container| container.sandbox == sandbox.id)
    }
}
