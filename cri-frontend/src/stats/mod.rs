//! Figures of pods and containers: the guest's own, asked for when someone wants them.

pub mod cpu;
pub mod filesystem;
pub mod hearing;

use std::{collections::HashMap, sync::Arc, time::Instant};

use a3s_box_proto::agent;
use futures::{StreamExt, stream};
use tracing::debug;

use self::hearing::Ask;
use crate::{
    container::{self, Container},
    error::{Error, Kind},
    node::Node,
    sandbox::{self, Sandbox, SandboxRecord},
    shim::{HostCost, Stats},
};

/// Pods that are asked at the same time: more than a node has, so that none waits for another one's silence.
const AT_ONCE: usize = 1024;

/// How much is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// What the kernel has counted.
    Counters,
    /// With what takes a look at each process.
    Details,
}

/// One sample of a pod and of all its containers.
#[derive(Debug)]
pub struct PodSample {
    /// The pod.
    pub sandbox: Arc<Sandbox>,
    /// The guest as a whole.
    pub figures: Figures,
    /// Processes and threads of its containers.
    pub processes: u64,
    /// Its network interfaces.
    pub interfaces: Vec<agent::InterfaceStats>,
    /// What all of it takes of the host.
    pub host: HostCost,
    /// Its running containers.
    pub containers: Vec<ContainerSample>,
}

/// One sample of a container.
#[derive(Debug)]
pub struct ContainerSample {
    /// The container.
    pub container: Arc<Container>,
    /// Its cgroup.
    pub figures: Figures,
    /// All that the guest told of it.
    pub told: agent::ContainerStats,
}

/// What the guest counts, and what follows from it.
#[derive(Debug)]
pub struct Figures {
    /// When, in nanoseconds since the epoch.
    pub at: i64,
    /// Processor time per second since the last sample, nanoseconds.
    pub cpu_rate: Option<u64>,
    /// cgroup v2's processor figures.
    pub cpu: agent::CpuStats,
    /// cgroup v2's memory figures.
    pub memory: agent::MemoryStats,
    /// cgroup v2's figures of block devices.
    pub io: agent::IoStats,
}

impl Figures {
    fn new(
        at: i64,
        cpu: &agent::CpuStats,
        memory: &agent::MemoryStats,
        io: &agent::IoStats,
        meter: &cpu::Meter,
    ) -> Self {
        let mut figures =
            Self { at, cpu_rate: None, cpu: cpu.clone(), memory: memory.clone(), io: io.clone() };
        // Not by `at`: a rate is of time that passes, and a clock may be set.
        figures.cpu_rate = meter.rate(Instant::now(), figures.cpu_nanos());
        figures
    }

    /// Processor time used, nanoseconds.
    pub fn cpu_nanos(&self) -> u64 {
        self.cpu.usage_usec.saturating_mul(1000)
    }

    /// What cannot be reclaimed at once: kubelet evicts by this.
    pub fn working_set(&self) -> u64 {
        self.memory.usage.saturating_sub(self.memory.inactive_file)
    }

    /// What is left below the limit, if there is one.
    pub fn available(&self) -> Option<u64> {
        let limited = self.memory.limit != 0 && self.memory.limit < u64::MAX / 2;
        limited.then(|| self.memory.limit.saturating_sub(self.working_set()))
    }
}

/// A sample of one pod.
pub async fn of_pod(node: &Node, sandbox: &Arc<Sandbox>, depth: Depth) -> Result<PodSample, Error> {
    if !sandbox.record.with(SandboxRecord::is_ready) {
        let problem = "is not ready: it has no figures".to_owned();
        return Err(Error::State { what: "pod sandbox", id: sandbox.id.to_string(), problem });
    }
    let told = sandbox.shim()?.stats(depth == Depth::Details).await.map_err(Error::from);
    let silent = told.as_ref().is_err_and(|error| error.kind() == Kind::DeadlineExceeded);
    sandbox.hearing.note(!silent);
    Ok(sample(node, sandbox, told?))
}

/// A sample of one container, which must run.
pub async fn of_container(node: &Node, container: &Container) -> Result<ContainerSample, Error> {
    let pod = of_pod(node, &container.pod(node)?, Depth::Counters).await?;
    let sample = pod.containers.into_iter().find(|sample| sample.container.id == container.id);
    sample.ok_or_else(|| {
        let problem = "is not running: it has no figures".to_owned();
        Error::State { what: "container", id: container.id.to_string(), problem }
    })
}

/// Samples of those running containers that a filter admits.
pub async fn of_containers(node: &Arc<Node>, filter: &container::list::Filter) -> Vec<ContainerSample> {
    let ready = sandbox::list::Filter { id: filter.sandbox.clone(), ready: Some(true), ..Default::default() };
    let pods = of_pods(node, &ready, Depth::Counters).await;
    let mut samples: Vec<_> = pods.into_iter().flat_map(|pod| pod.containers).collect();
    samples.retain(|sample| sample.container.record.with(|record| filter.admits(record)));
    samples
}

/// Samples of those pods that a filter admits. One that does not answer is left out: it costs the first caller a moment, and
/// later ones nothing, until it answers again.
pub async fn of_pods(node: &Arc<Node>, filter: &sandbox::list::Filter, depth: Depth) -> Vec<PodSample> {
    let answers = stream::iter(sandbox::list::list(node, filter)).map(|sandbox| async move {
        match sandbox.hearing.ask() {
            Ask::Now => heard(node, &sandbox, depth).await,
            Ask::Behind => {
                let owner = node.clone();
                node.watch(async move { drop(heard(&owner, &sandbox, Depth::Counters).await) });
                None
            }
            Ask::Not => None,
        }
    });
    answers.buffer_unordered(AT_ONCE).filter_map(std::future::ready).collect().await
}

async fn heard(node: &Node, sandbox: &Arc<Sandbox>, depth: Depth) -> Option<PodSample> {
    of_pod(node, sandbox, depth)
        .await
        .inspect_err(|error| debug!(sandbox = %sandbox.id, %error, "no figures"))
        .ok()
}

fn sample(node: &Node, sandbox: &Arc<Sandbox>, told: Stats) -> PodSample {
    // The host's clock: it orders samples also over a guest's restart.
    let at = crate::clock::unix_nanos();
    let running = |container: &Arc<Container>| container.record.with(|record| record.state.is_running());
    let known: HashMap<String, Arc<Container>> = node
        .containers_of(sandbox)
        .into_iter()
        .filter(running)
        .map(|container| (container.id.to_string(), container))
        .collect();
    let Stats { guest, host } = told;
    // What the guest says of containers that are not this pod's is nobody's figure.
    let containers = guest.containers.into_iter().filter_map(|told| {
        let container = known.get(&told.container_id)?.clone();
        let figures = Figures::new(at, &told.cpu, &told.memory, &told.io, &container.cpu);
        Some(ContainerSample { container, figures, told })
    });
    PodSample {
        containers: containers.collect(),
        figures: Figures::new(at, &guest.cpu, &guest.memory, &guest.io, &sandbox.cpu),
        processes: guest.process_count,
        interfaces: guest.interfaces,
        host,
        sandbox: sandbox.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn memory(usage: u64, inactive_file: u64, limit: u64) -> Figures {
        let memory = agent::MemoryStats { usage, inactive_file, limit, ..Default::default() };
        let (cpu, io) = (agent::CpuStats::default(), agent::IoStats::default());
        Figures::new(0, &cpu, &memory, &io, &cpu::Meter::default())
    }

    #[test]
    fn the_working_set_leaves_out_what_can_be_reclaimed() {
        assert_eq!(memory(100, 30, 0).working_set(), 70);
        assert_eq!(memory(10, 30, 0).working_set(), 0);
    }

    #[test]
    fn available_is_told_only_below_a_limit() {
        assert_eq!(memory(100, 30, 200).available(), Some(130));
        assert_eq!(memory(100, 30, 0).available(), None);
        assert_eq!(memory(100, 30, u64::MAX).available(), None);
    }
}
