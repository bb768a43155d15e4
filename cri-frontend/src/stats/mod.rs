//! Figures of pods and containers: the guest's own, asked for when someone wants them.

pub mod cpu;
pub mod filesystem;

use std::{collections::HashMap, sync::Arc};

use a3s_box_proto::agent;
use futures::{StreamExt, stream};
use tracing::debug;

use crate::{container::Container, error::Error, node::Node, sandbox::Sandbox};

/// Pods that are asked at the same time.
const AT_ONCE: usize = 32;

/// One sample of a pod and of all its containers.
#[derive(Debug)]
pub struct PodSample {
    /// The pod.
    pub sandbox: Arc<Sandbox>,
    /// The guest as a whole.
    pub figures: Figures,
    /// Its network interfaces.
    pub interfaces: Vec<agent::InterfaceStats>,
    /// Its containers that the guest knows.
    pub containers: Vec<ContainerSample>,
}

/// One sample of a container.
#[derive(Debug)]
pub struct ContainerSample {
    /// The container.
    pub container: Arc<Container>,
    /// Its cgroup.
    pub figures: Figures,
    /// Bytes of its writable layer.
    pub writable_bytes: u64,
    /// Inodes of its writable layer.
    pub writable_inodes: u64,
}

/// What the guest counts, and what follows from it.
#[derive(Debug)]
pub struct Figures {
    /// When, in nanoseconds since the epoch.
    pub at: i64,
    /// Processor time used, nanoseconds.
    pub cpu_nanos: u64,
    /// Processor time per second since the last sample, nanoseconds.
    pub cpu_rate: Option<u64>,
    /// cgroup v2's memory figures.
    pub memory: agent::MemoryStats,
    /// Processes.
    pub processes: u64,
}

impl Figures {
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
pub async fn of_pod(node: &Node, sandbox: &Arc<Sandbox>) -> Result<PodSample, Error> {
    let told = sandbox.shim()?.stats().await?;
    Ok(sample(node, sandbox, told))
}

/// Samples of many pods; one that does not answer in time is left out and holds up none.
pub async fn of_pods(node: &Node, sandboxes: Vec<Arc<Sandbox>>) -> Vec<PodSample> {
    let answers = stream::iter(sandboxes).map(|sandbox| async move {
        match of_pod(node, &sandbox).await {
            Ok(sample) => Some(sample),
            Err(error) => {
                debug!(sandbox = %sandbox.id, %error, "no figures");
                None
            }
        }
    });
    answers.buffer_unordered(AT_ONCE).filter_map(std::future::ready).collect().await
}

fn sample(node: &Node, sandbox: &Arc<Sandbox>, told: agent::StatsResponse) -> PodSample {
    // The host's clock: it orders samples also over a guest's restart.
    let at = crate::clock::unix_nanos();
    let known: HashMap<String, Arc<Container>> = node
        .containers_of(sandbox)
        .into_iter()
        .map(|container| (container.id.to_string(), container))
        .collect();
    // What the guest says of containers that are not this pod's is nobody's figure.
    let containers = told.containers.into_iter().filter_map(|stats| {
        let container = known.get(&stats.container_id)?.clone();
        let figures = figures(at, &stats.cpu, &stats.memory, stats.process_count, &container.cpu);
        Some(ContainerSample {
            container,
            figures,
            writable_bytes: stats.writable_bytes,
            writable_inodes: stats.writable_inodes,
        })
    });
    PodSample {
        containers: containers.collect(),
        figures: figures(at, &told.cpu, &told.memory, told.process_count, &sandbox.cpu),
        interfaces: told.interfaces,
        sandbox: sandbox.clone(),
    }
}

fn figures(
    at: i64,
    cpu: &agent::CpuStats,
    memory: &agent::MemoryStats,
    processes: u64,
    meter: &cpu::Meter,
) -> Figures {
    let cpu_nanos = cpu.usage_usec.saturating_mul(1000);
    Figures { at, cpu_nanos, cpu_rate: meter.rate(at, cpu_nanos), memory: memory.clone(), processes }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn memory(usage: u64, inactive_file: u64, limit: u64) -> Figures {
        let memory = agent::MemoryStats { usage, inactive_file, limit, ..Default::default() };
        Figures { at: 0, cpu_nanos: 0, cpu_rate: None, memory, processes: 0 }
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
