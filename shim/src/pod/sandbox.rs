//! A MicroVM that is up: what of the pod exists as long as it runs.

use std::{
    sync::{Arc, OnceLock},
    time::SystemTime,
};

use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

use super::{
    Pod, boot::Booted, cpusets::Cpusets, oom_scores::OomScores, resources::Resources, spec::PodSpec,
};
use crate::{
    agent::Agent,
    caller::Caller,
    cgroup::Cgroup,
    rootfs::{layers::Layers, shared_dir::SharedDir},
    sys::namespace::HostNamespace,
    vm::Size,
    volume::{Volumes, block::Blocks, mirror::Limits},
};

/// A running VM, and what the host holds for it.
pub struct Sandbox {
    /// What was asked for.
    pub spec: PodSpec,
    /// Its size.
    pub size: Size,
    /// How it came up.
    pub booted: Booted,
    /// The agent in it.
    pub agent: Arc<Agent>,
    /// The VMM's process.
    pub pid: u32,
    /// What it sees of the host.
    pub share: SharedDir,
    /// The layers attached there.
    pub layers: Mutex<Layers>,
    /// Who started the shim.
    pub caller: Caller,
    /// What of the host its containers see there.
    pub volumes: Mutex<Volumes>,
    /// The block devices that its containers use.
    pub blocks: Mutex<Blocks>,
    /// Where the node's paths mean what callers mean.
    pub host: HostNamespace,
    /// The pod's cgroup on the host.
    pub cgroup: Cgroup,
    /// What its containers name of the host's processors.
    pub cpusets: Mutex<Cpusets>,
    /// How gladly the kernel would kill each of its containers.
    pub oom_scores: Mutex<OomScores>,
    /// When it was up.
    pub created: SystemTime,
    /// All that is to be given back; taken by whoever does that.
    pub resources: Mutex<Option<Resources>>,
    death: CancellationToken,
    message: OnceLock<String>,
}

impl Sandbox {
    /// A pod's VM that has just come up. None, where a part of it is missing.
    pub(super) fn new(
        pod: &Pod,
        spec: PodSpec,
        size: Size,
        booted: Booted,
        resources: Resources,
    ) -> Option<Self> {
        let mirrored = Limits::from(&pod.config.volumes);
        let vm = resources.vm.clone()?;
        let share = resources.share.clone()?;
        let pid = vm.process().pid.unsigned_abs();
        let death = CancellationToken::new();
        let agent = Arc::new(Agent::new(vm, death.clone()));
        let volumes = Volumes::new(share.clone(), resources.share_daemon?, agent.clone(), mirrored);
        Some(Self {
            spec,
            size,
            booted,
            pid,
            share,
            layers: Mutex::default(),
            caller: pod.caller.clone(),
            volumes: Mutex::new(volumes),
            blocks: Mutex::new(Blocks::new(agent.clone())),
            agent,
            host: pod.host.clone(),
            cgroup: resources.cgroup.clone().unwrap_or_default(),
            cpusets: Mutex::default(),
            oom_scores: Mutex::default(),
            created: SystemTime::now(),
            resources: Mutex::new(Some(resources)),
            death,
            message: OnceLock::new(),
        })
    }

    /// Says that the VM has ended, and why. The first word stands.
    pub fn declare_dead(&self, message: String) {
        let _ = self.message.set(message);
        self.death.cancel();
    }

    /// Why the VM ended; none while it runs.
    pub fn death_message(&self) -> Option<String> {
        self.death.is_cancelled().then(|| self.message.get().cloned().unwrap_or_default())
    }

    /// Waits for the VM's end.
    pub async fn died(&self) -> String {
        self.death.cancelled().await;
        self.message.get().cloned().unwrap_or_default()
    }
}
