//! Figures in containerd's form: cgroup version 2's, as the guest has them.

use std::time::SystemTime;

use a3s_box_proto::agent::{CpuStats, IoStats, MemoryStats, Pressure, Stall};
use containerd_shim_protos::{
    cgroups_v2::metrics::{CPUStat, IOStat, MemoryEvents, MemoryStat, Metrics, PSIData, PSIStats, PidsStat},
    sandbox_api::SandboxMetricsResponse,
};
use protobuf::{Message, MessageField, well_known_types::any::Any};

use super::timestamp;
use crate::{
    error::{Error, Result, Step},
    pod::{Pod, container::Container},
};

/// The name under which containerd registers the message.
const TYPE: &str = "io.containerd.cgroups.v2.Metrics";

/// One container's.
pub(super) async fn of_container(pod: &Pod, container: &Container) -> Result<Any> {
    let sandbox = pod.ready("measure it")?;
    let stats = sandbox.agent.stats(std::slice::from_ref(&container.id), false).await?;
    let stats = stats
        .containers
        .into_iter()
        .next()
        .ok_or_else(|| Error::NotFound(format!("figures of container {}", container.id)))?;
    encode(&stats.cpu, &stats.memory, &stats.io, (stats.process_count, stats.pids_limit))
}

/// The guest's as a whole.
pub(super) async fn of_pod(pod: &Pod) -> Result<Any> {
    let stats = pod.ready("measure it")?.agent.stats(&[], false).await?;
    encode(&stats.cpu, &stats.memory, &stats.io, (stats.process_count, 0))
}

/// The answer to containerd's question for a sandbox's.
pub(super) async fn of_sandbox(pod: &Pod) -> Result<SandboxMetricsResponse> {
    let mut response = SandboxMetricsResponse::default();
    let metrics = response.metrics.mut_or_insert_default();
    metrics.data = MessageField::some(of_pod(pod).await?);
    metrics.id = pod.id.to_string();
    metrics.timestamp = timestamp(SystemTime::now());
    Ok(response)
}

fn encode(cpu: &CpuStats, memory: &MemoryStats, io: &IoStats, (current, limit): (u64, u64)) -> Result<Any> {
    let metrics = Metrics {
        pids: MessageField::some(PidsStat { current, limit, ..PidsStat::default() }),
        cpu: MessageField::some(convert_cpu(cpu)),
        memory: MessageField::some(convert_memory(memory)),
        io: MessageField::some(IOStat { psi: psi(&io.pressure), ..IOStat::default() }),
        memory_events: MessageField::some(MemoryEvents {
            max: memory.limit_hits,
            oom_kill: memory.oom_kills,
            ..MemoryEvents::default()
        }),
        ..Metrics::default()
    };
    let value = metrics.write_to_bytes().map_err(std::io::Error::other).step(|| "encoding figures".into())?;
    Ok(Any { type_url: TYPE.into(), value, ..Any::default() })
}

/// Nothing, where the kernel has no such figures.
fn psi(pressure: &Pressure) -> MessageField<PSIStats> {
    let data = |stall: &MessageField<Stall>| {
        let convert = |stall: &Stall| PSIData {
            avg10: stall.avg10,
            avg60: stall.avg60,
            avg300: stall.avg300,
            total: stall.total_usec,
            ..PSIData::default()
        };
        MessageField::from(stall.as_ref().map(convert))
    };
    let (some, full) = (data(&pressure.some), data(&pressure.full));
    if some.is_none() && full.is_none() {
        return MessageField::none();
    }
    MessageField::some(PSIStats { some, full, ..PSIStats::default() })
}

fn convert_cpu(cpu: &CpuStats) -> CPUStat {
    CPUStat {
        usage_usec: cpu.usage_usec,
        user_usec: cpu.user_usec,
        system_usec: cpu.system_usec,
        nr_periods: cpu.periods,
        nr_throttled: cpu.throttled_periods,
        throttled_usec: cpu.throttled_usec,
        psi: psi(&cpu.pressure),
        ..CPUStat::default()
    }
}

fn convert_memory(memory: &MemoryStats) -> MemoryStat {
    MemoryStat {
        anon: memory.anon,
        file: memory.file,
        file_mapped: memory.mapped_file,
        inactive_file: memory.inactive_file,
        active_file: memory.active_file,
        pgfault: memory.page_faults,
        pgmajfault: memory.major_page_faults,
        usage: memory.usage,
        usage_limit: memory.limit,
        swap_usage: memory.swap_usage,
        swap_limit: memory.swap_limit,
        max_usage: memory.peak,
        psi: psi(&memory.pressure),
        ..MemoryStat::default()
    }
}
