//! Figures in containerd's form: cgroup version 2's, as the guest has them.

use std::time::SystemTime;

use a3s_box_proto::agent::{CpuStats, DeviceIo, IoStats, MemoryStats, Pressure, Stall};
use containerd_shim_protos::{
    cgroups_v2::metrics::{
        CPUStat, IOEntry, IOStat, MemoryEvents, MemoryStat, Metrics, PSIData, PSIStats, PidsStat,
    },
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
    encode(&stats.cpu, &stats.memory, &stats.io, pids(stats.process_count, stats.pids_limit))
}

/// The guest's as a whole.
pub(super) async fn of_pod(pod: &Pod) -> Result<Any> {
    let stats = pod.ready("measure it")?.agent.stats(&[], false).await?;
    encode(&stats.cpu, &stats.memory, &stats.io, pids(stats.process_count, 0))
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

fn encode(cpu: &CpuStats, memory: &MemoryStats, io: &IoStats, pids: PidsStat) -> Result<Any> {
    let metrics = Metrics {
        pids: MessageField::some(pids),
        cpu: MessageField::some(convert_cpu(cpu)),
        memory: MessageField::some(convert_memory(memory)),
        io: MessageField::some(convert_io(io)),
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

fn pids(current: u64, limit: u64) -> PidsStat {
    PidsStat { current, limit, ..PidsStat::default() }
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

fn convert_io(io: &IoStats) -> IOStat {
    let convert = |device: &DeviceIo| IOEntry {
        major: device.major.into(),
        minor: device.minor.into(),
        rbytes: device.read_bytes,
        wbytes: device.written_bytes,
        rios: device.reads,
        wios: device.writes,
        ..IOEntry::default()
    };
    let usage = io.devices.iter().map(convert).collect();
    IOStat { usage, psi: psi(&io.pressure), ..IOStat::default() }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn containerd_is_told_all_that_the_guest_counts() {
        let pressure = |total_usec| {
            let stall = Stall { total_usec, avg10: 1.5, ..Stall::default() };
            MessageField::some(Pressure { some: MessageField::some(stall), ..Pressure::default() })
        };
        let cpu = CpuStats {
            usage_usec: 1,
            user_usec: 2,
            system_usec: 3,
            periods: 4,
            throttled_periods: 5,
            throttled_usec: 6,
            pressure: pressure(7),
            ..CpuStats::default()
        };
        let memory = MemoryStats {
            usage: 10,
            limit: 11,
            anon: 12,
            file: 13,
            inactive_file: 14,
            active_file: 15,
            mapped_file: 16,
            page_faults: 17,
            major_page_faults: 18,
            swap_usage: 19,
            swap_limit: 20,
            peak: 21,
            oom_kills: 22,
            limit_hits: 23,
            pressure: pressure(24),
            ..MemoryStats::default()
        };
        let device = DeviceIo {
            major: 30,
            minor: 31,
            read_bytes: 32,
            written_bytes: 33,
            reads: 34,
            writes: 35,
            ..DeviceIo::default()
        };
        let io = IoStats { devices: vec![device], ..IoStats::default() };
        let any = encode(&cpu, &memory, &io, pids(40, 41)).unwrap();
        assert_eq!(any.type_url, TYPE);
        let told = Metrics::parse_from_bytes(&any.value).unwrap();

        let stat = &told.cpu;
        assert_eq!([stat.usage_usec, stat.user_usec, stat.system_usec], [1, 2, 3]);
        assert_eq!([stat.nr_periods, stat.nr_throttled, stat.throttled_usec], [4, 5, 6]);
        assert_eq!((stat.psi.some.total, stat.psi.some.avg10, stat.psi.full.is_none()), (7, 1.5, true));
        let stat = &told.memory;
        assert_eq!(
            [stat.usage, stat.usage_limit, stat.anon, stat.file, stat.inactive_file],
            [10, 11, 12, 13, 14]
        );
        assert_eq!([stat.active_file, stat.file_mapped, stat.pgfault, stat.pgmajfault], [15, 16, 17, 18]);
        assert_eq!([stat.swap_usage, stat.swap_limit, stat.max_usage], [19, 20, 21]);
        assert_eq!(stat.psi.some.total, 24);
        assert_eq!([told.memory_events.oom_kill, told.memory_events.max], [22, 23]);
        let entry = &told.io.usage[0];
        assert_eq!([entry.major, entry.minor, entry.rbytes, entry.wbytes], [30, 31, 32, 33]);
        assert_eq!((entry.rios, entry.wios, told.io.psi.is_none()), (34, 35, true));
        assert_eq!([told.pids.current, told.pids.limit], [40, 41]);
    }
}
