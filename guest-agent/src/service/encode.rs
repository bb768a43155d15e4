//! The domain's answers become messages.

use a3s_box_proto::agent;

use crate::{
    container::{
        stats::{ContainerFigures, Cpu, Interface, Memory, PodFigures},
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
        ..Default::default()
    }
}

fn cpu(cpu: Cpu) -> agent::CpuStats {
    let [periods, throttled_periods, throttled_usec] = cpu.throttling;
    agent::CpuStats {
        usage_usec: cpu.usage,
        user_usec: cpu.user,
        system_usec: cpu.system,
        periods,
        throttled_periods,
        throttled_usec,
        ..Default::default()
    }
}

fn memory(memory: Memory) -> agent::MemoryStats {
    let [page_faults, major_page_faults] = memory.faults;
    agent::MemoryStats {
        usage: memory.usage,
        limit: memory.limit,
        anon: memory.anon,
        file: memory.file,
        inactive_file: memory.inactive_file,
        page_faults,
        major_page_faults,
        swap_usage: memory.swap,
        swap_limit: memory.swap_limit,
        oom_kills: memory.oom_kills,
        ..Default::default()
    }
}

fn interface(interface: Interface) -> agent::InterfaceStats {
    let [rx_bytes, rx_packets, rx_errors] = interface.received;
    let [tx_bytes, tx_packets, tx_errors] = interface.sent;
    agent::InterfaceStats {
        name: interface.name,
        rx_bytes,
        rx_errors,
        tx_bytes,
        tx_errors,
        rx_packets,
        tx_packets,
        ..Default::default()
    }
}
