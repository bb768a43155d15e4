//! Figures.

use a3s_box_proto::{agent, cri};

use crate::{
    node::Node,
    stats::{ContainerSample, Figures, PodSample},
};

/// The CRI's numbers of pressure are nanoseconds.
const MICROSECOND: u64 = 1000;
/// The interface that kubelet takes for the pod's own.
const DEFAULT_INTERFACE: &str = "eth0";

/// A container's figures.
pub fn container(node: &Node, sample: &ContainerSample) -> cri::ContainerStats {
    let attributes = sample.container.record.with(|record| cri::ContainerAttributes {
        id: record.id.to_string(),
        metadata: record.config.metadata.clone(),
        labels: record.config.labels.clone(),
        annotations: record.config.annotations.clone(),
    });
    let figures = &sample.figures;
    cri::ContainerStats {
        attributes: Some(attributes),
        cpu: Some(cpu(figures)),
        memory: Some(memory(figures)),
        writable_layer: Some(cri::FilesystemUsage {
            timestamp: figures.at,
            fs_id: Some(cri::FilesystemIdentifier {
                mountpoint: node.config.root_dir.to_string_lossy().into_owned(),
            }),
            used_bytes: some(sample.told.writable_bytes),
            inodes_used: some(sample.told.writable_inodes),
        }),
        swap: Some(swap(figures)),
        io: Some(io(figures)),
    }
}

/// A pod's figures.
pub fn pod(node: &Node, sample: &PodSample) -> cri::PodSandboxStats {
    let attributes = sample.sandbox.record.with(|record| cri::PodSandboxAttributes {
        id: record.id.to_string(),
        metadata: record.config.metadata.clone(),
        labels: record.config.labels.clone(),
        annotations: record.config.annotations.clone(),
    });
    let figures = &sample.figures;
    let linux = cri::LinuxPodSandboxStats {
        cpu: Some(cpu(figures)),
        memory: Some(memory(figures)),
        network: Some(network(figures.at, &sample.interfaces)),
        process: Some(cri::ProcessUsage { timestamp: figures.at, process_count: some(sample.processes) }),
        containers: sample.containers.iter().map(|sample| container(node, sample)).collect(),
        io: Some(io(figures)),
    };
    cri::PodSandboxStats { attributes: Some(attributes), linux: Some(linux), windows: None }
}

fn cpu(figures: &Figures) -> cri::CpuUsage {
    cri::CpuUsage {
        timestamp: figures.at,
        usage_core_nano_seconds: some(figures.cpu_nanos()),
        usage_nano_cores: figures.cpu_rate.and_then(some),
        psi: psi(&figures.cpu.pressure),
    }
}

fn memory(figures: &Figures) -> cri::MemoryUsage {
    cri::MemoryUsage {
        timestamp: figures.at,
        working_set_bytes: some(figures.working_set()),
        available_bytes: figures.available().and_then(some),
        usage_bytes: some(figures.memory.usage),
        rss_bytes: some(figures.memory.anon),
        page_faults: some(figures.memory.page_faults),
        major_page_faults: some(figures.memory.major_page_faults),
        psi: psi(&figures.memory.pressure),
    }
}

fn io(figures: &Figures) -> cri::IoUsage {
    cri::IoUsage { timestamp: figures.at, psi: psi(&figures.io.pressure) }
}

/// Nothing, where the kernel has no such figures.
fn psi(pressure: &agent::Pressure) -> Option<cri::PsiStats> {
    let data = |stall: &agent::Stall| cri::PsiData {
        total: stall.total_usec.saturating_mul(MICROSECOND),
        avg10: stall.avg10,
        avg60: stall.avg60,
        avg300: stall.avg300,
    };
    let (some, full) = (pressure.some.as_ref().map(data), pressure.full.as_ref().map(data));
    (some.is_some() || full.is_some()).then_some(cri::PsiStats { some, full })
}

fn swap(figures: &Figures) -> cri::SwapUsage {
    let memory = &figures.memory;
    cri::SwapUsage {
        timestamp: figures.at,
        swap_available_bytes: some(memory.swap_limit.saturating_sub(memory.swap_usage)),
        swap_usage_bytes: some(memory.swap_usage),
    }
}

fn network(at: i64, interfaces: &[agent::InterfaceStats]) -> cri::NetworkUsage {
    let usage = |interface: &agent::InterfaceStats| cri::NetworkInterfaceUsage {
        name: interface.name.clone(),
        rx_bytes: some(interface.rx_bytes),
        rx_errors: some(interface.rx_errors),
        tx_bytes: some(interface.tx_bytes),
        tx_errors: some(interface.tx_errors),
    };
    let of_pod = |interface: &&agent::InterfaceStats| interface.name == DEFAULT_INTERFACE;
    let default = interfaces.iter().find(of_pod).or_else(|| interfaces.first());
    let others =
        |interface: &&agent::InterfaceStats| default.is_none_or(|default| default.name != interface.name);
    cri::NetworkUsage {
        timestamp: at,
        default_interface: default.map(usage),
        interfaces: interfaces.iter().filter(others).map(usage).collect(),
    }
}

fn some(value: u64) -> Option<cri::UInt64Value> {
    Some(cri::UInt64Value { value })
}
