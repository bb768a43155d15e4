//! The domain's answers become messages.

use a3s_box_proto::agent;

use crate::{
    container::{
        stats::{
            ContainerFigures, Cpu, Interface, Memory, PodFigures,
            io::{Device, Io},
            pressure::{Pressure, Stall},
            processes::Details,
        },
        user::Resolved,
        wait::Ended,
    },
    sys::time::unix_nanos,
};

/// CreateContainer.
pub fn created(user: Resolved) -> agent::CreateContainerResponse {
    let user =
        agent::User { uid: user.uid, gid: user.gid, supplemental_groups: user.groups, ..Default::default() };
    agent::CreateContainerResponse { user: Some(user).into(), ..Default::default() }
}

/// Wait.
pub fn ended(ended: Ended) -> agent::WaitResponse {
    agent::WaitResponse {
        exit_code: ended.exit.code,
        exited_at_unix_nanos: ended.exit.at_unix_nanos,
        oom_killed: ended.oom_killed,
        ..Default::default()
    }
}

/// Stats.
pub fn stats(figures: PodFigures) -> agent::StatsResponse {
    agent::StatsResponse {
        containers: figures.containers.into_iter().map(container).collect(),
        cpu: Some(cpu(figures.cpu)).into(),
        memory: Some(memory(figures.memory)).into(),
        interfaces: figures.interfaces.into_iter().map(interface).collect(),
        process_count: figures.processes,
        io: Some(io(figures.io)).into(),
        unix_nanos: unix_nanos(),
        ..Default::default()
    }
}

fn container(figures: ContainerFigures) -> agent::ContainerStats {
    agent::ContainerStats {
        container_id: figures.id.into(),
        cpu: Some(cpu(figures.cpu)).into(),
        memory: Some(memory(figures.memory)).into(),
        process_count: figures.processes,
        writable_bytes: figures.writable.bytes,
        writable_inodes: figures.writable.inodes,
        pids_limit: figures.processes_limit,
        io: Some(io(figures.io)).into(),
        hugepages: figures
            .hugepages
            .into_iter()
            .map(|(page_size, usage)| agent::HugepageStats { page_size, usage, ..Default::default() })
            .collect(),
        filesystem_bytes: figures.writable.bytes_in_all,
        filesystem_inodes: figures.writable.inodes_in_all,
        filesystem_inodes_free: figures.writable.inodes_free,
        details: figures.details.map(details).into(),
        ..Default::default()
    }
}

fn details(details: Details) -> agent::ContainerDetails {
    let limit = |(name, value)| agent::SoftLimit { name, value, ..Default::default() };
    agent::ContainerDetails {
        processes: details.processes,
        file_descriptors: details.file_descriptors,
        sockets: details.sockets,
        soft_limits: details.soft_limits.into_iter().map(limit).collect(),
        ..Default::default()
    }
}

fn io(io: Io) -> agent::IoStats {
    let device = |device: Device| agent::DeviceIo {
        major: device.major,
        minor: device.minor,
        read_bytes: device.read.bytes,
        written_bytes: device.written.bytes,
        reads: device.read.requests,
        writes: device.written.requests,
        ..Default::default()
    };
    agent::IoStats {
        devices: io.devices.into_iter().map(device).collect(),
        pressure: Some(pressure(io.pressure)).into(),
        ..Default::default()
    }
}

fn pressure(pressure: Pressure) -> agent::Pressure {
    let stall = |stall: Stall| {
        let [avg10, avg60, avg300] = stall.averages;
        agent::Stall { total_usec: stall.total, avg10, avg60, avg300, ..Default::default() }
    };
    agent::Pressure {
        some: pressure.some.map(stall).into(),
        full: pressure.full.map(stall).into(),
        ..Default::default()
    }
}

fn cpu(cpu: Cpu) -> agent::CpuStats {
    agent::CpuStats {
        usage_usec: cpu.usage,
        user_usec: cpu.user,
        system_usec: cpu.system,
        periods: cpu.periods,
        throttled_periods: cpu.throttled_periods,
        throttled_usec: cpu.throttled,
        pressure: Some(pressure(cpu.pressure)).into(),
        ..Default::default()
    }
}

fn memory(memory: Memory) -> agent::MemoryStats {
    agent::MemoryStats {
        usage: memory.usage,
        limit: memory.limit,
        anon: memory.anon,
        file: memory.file,
        inactive_file: memory.inactive_file,
        page_faults: memory.faults,
        major_page_faults: memory.major_faults,
        swap_usage: memory.swap,
        swap_limit: memory.swap_limit,
        oom_kills: memory.oom_kills,
        active_file: memory.active_file,
        mapped_file: memory.mapped_file,
        kernel: memory.kernel,
        peak: memory.peak,
        limit_hits: memory.limit_hits,
        pressure: Some(pressure(memory.pressure)).into(),
        ..Default::default()
    }
}

fn interface(interface: Interface) -> agent::InterfaceStats {
    let Interface { name, received, sent } = interface;
    agent::InterfaceStats {
        name,
        rx_bytes: received.bytes,
        rx_packets: received.packets,
        rx_errors: received.errors,
        rx_dropped: received.dropped,
        tx_bytes: sent.bytes,
        tx_packets: sent.packets,
        tx_errors: sent.errors,
        tx_dropped: sent.dropped,
        ..Default::default()
    }
}
