//! What the pod and its containers use, as the kernel counts it.

pub mod io;
pub mod pressure;
pub mod processes;

use std::fs;

use a3s_box_proto::ids::ContainerId;

use self::{
    io::Io,
    pressure::Pressure,
    processes::{Budget, Details},
};
use super::{Container, Containers};
use crate::{
    cgroup::{Cgroup, limit_of, value_of},
    error::{Failed, blocking},
    paths,
    sys::quota::Usage,
};

/// Processor time in microseconds.
#[derive(Debug, Default, Clone, Copy, PartialEq)]
pub struct Cpu {
    /// All of it.
    pub usage: u64,
    /// In programs.
    pub user: u64,
    /// In the kernel.
    pub system: u64,
    /// Periods of the limit.
    pub periods: u64,
    /// Those in which it was reached.
    pub throttled_periods: u64,
    /// Lost by it.
    pub throttled: u64,
    /// Waiting for a processor.
    pub pressure: Pressure,
}

/// Memory in bytes.
#[derive(Debug, Default, Clone, Copy, PartialEq)]
pub struct Memory {
    /// In use.
    pub usage: u64,
    /// 0 is none.
    pub limit: u64,
    /// Of programs.
    pub anon: u64,
    /// Of files.
    pub file: u64,
    /// Of files that could be dropped at once.
    pub inactive_file: u64,
    /// Of files that were used lately.
    pub active_file: u64,
    /// Of files that are mapped.
    pub mapped_file: u64,
    /// Of the kernel, for these programs.
    pub kernel: u64,
    /// The most that was ever in use.
    pub peak: u64,
    /// How often the limit was reached.
    pub limit_hits: u64,
    /// How often a page was not there.
    pub faults: u64,
    /// And had to be read from a disk.
    pub major_faults: u64,
    /// Swapped out.
    pub swap: u64,
    /// 0 is none.
    pub swap_limit: u64,
    /// Processes killed for want of memory.
    pub oom_kills: u64,
    /// Waiting for memory.
    pub pressure: Pressure,
}

/// A network device.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// By it.
    pub received: Traffic,
    /// By it.
    pub sent: Traffic,
}

/// One direction's counters.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Traffic {
    /// In all packets.
    pub bytes: u64,
    /// All but those that failed.
    pub packets: u64,
    /// Packets that failed.
    pub errors: u64,
    /// Packets for which there was no room.
    pub dropped: u64,
}

/// A container's figures.
#[derive(Debug, Clone)]
pub struct ContainerFigures {
    /// Whose.
    pub id: ContainerId,
    /// Processor.
    pub cpu: Cpu,
    /// Memory.
    pub memory: Memory,
    /// Processes and threads.
    pub processes: u64,
    /// 0 is none.
    pub processes_limit: u64,
    /// Its writable layer.
    pub writable: Usage,
    /// Block devices.
    pub io: Io,
    /// Huge pages in use: size as the kernel writes it, bytes.
    pub hugepages: Vec<(String, u64)>,
    /// What has to be looked for process by process, where it was asked for.
    pub details: Option<Details>,
}

/// The guest's.
#[derive(Debug, Default, Clone)]
pub struct PodFigures {
    /// Each container's.
    pub containers: Vec<ContainerFigures>,
    /// All processors.
    pub cpu: Cpu,
    /// All memory.
    pub memory: Memory,
    /// Network devices but the loopback.
    pub interfaces: Vec<Interface>,
    /// Processes and threads of all containers.
    pub processes: u64,
    /// Block devices.
    pub io: Io,
}

fn cpu(stat: &str, pressure: &str) -> Cpu {
    let value = |key| value_of(stat, key).unwrap_or(0);
    Cpu {
        usage: value("usage_usec"),
        user: value("user_usec"),
        system: value("system_usec"),
        periods: value("nr_periods"),
        throttled_periods: value("nr_throttled"),
        throttled: value("throttled_usec"),
        pressure: pressure.into(),
    }
}

fn memory(cgroup: &Cgroup) -> Memory {
    let stat = cgroup.read("memory.stat");
    let value = |key| value_of(&stat, key).unwrap_or(0);
    let number = |file: &str| limit_of(&cgroup.read(file)).unwrap_or(0);
    Memory {
        usage: number("memory.current"),
        limit: number("memory.max"),
        anon: value("anon"),
        file: value("file"),
        inactive_file: value("inactive_file"),
        active_file: value("active_file"),
        mapped_file: value("file_mapped"),
        kernel: value("kernel"),
        peak: number("memory.peak"),
        limit_hits: value_of(&cgroup.read("memory.events"), "max").unwrap_or(0),
        faults: value("pgfault"),
        major_faults: value("pgmajfault"),
        swap: number("memory.swap.current"),
        swap_limit: number("memory.swap.max"),
        oom_kills: cgroup.oom_kills(),
        pressure: cgroup.read("memory.pressure").as_str().into(),
    }
}

/// A line of /proc/meminfo, in bytes.
fn meminfo(text: &str, key: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
    let kilobytes = line.and_then(|rest| rest.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok());
    kilobytes.unwrap_or(0) * 1024
}

/// The root cgroup has no memory files; the machine's are its.
fn guest_memory(info: &str, vmstat: &str, pressure: &str) -> Memory {
    let value = |key| meminfo(info, key);
    let event = |key| value_of(vmstat, key).unwrap_or(0);
    Memory {
        usage: value("MemTotal").saturating_sub(value("MemFree")),
        limit: value("MemTotal"),
        anon: value("AnonPages"),
        file: value("Cached") + value("Buffers"),
        inactive_file: value("Inactive(file)"),
        active_file: value("Active(file)"),
        mapped_file: value("Mapped"),
        kernel: value("Slab") + value("KernelStack") + value("PageTables"),
        // The kernel does not remember these for a whole machine.
        peak: 0,
        limit_hits: 0,
        faults: event("pgfault"),
        major_faults: event("pgmajfault"),
        swap: value("SwapTotal").saturating_sub(value("SwapFree")),
        swap_limit: value("SwapTotal"),
        oom_kills: event("oom_kill"),
        pressure: pressure.into(),
    }
}

/// The table of /proc/net/dev, without the loopback.
fn interfaces(table: &str) -> Vec<Interface> {
    let parse = |line: &str| {
        let (name, counters) = line.split_once(':')?;
        let counters: Vec<u64> =
            counters.split_ascii_whitespace().map_while(|text| text.parse().ok()).collect();
        let at = |index: usize| counters.get(index).copied().unwrap_or(0);
        let traffic = |first| Traffic {
            bytes: at(first),
            packets: at(first + 1),
            errors: at(first + 2),
            dropped: at(first + 3),
        };
        Some(Interface { name: name.trim().to_owned(), received: traffic(0), sent: traffic(8) })
    };
    table.lines().filter_map(parse).filter(|interface| interface.name != "lo").collect()
}

/// Sizes whose controller counts here.
fn hugepages(cgroup: &Cgroup) -> Vec<(String, u64)> {
    let current = |size: &str| limit_of(&cgroup.read(&format!("hugetlb.{size}.current")));
    ["2MB", "1GB"].into_iter().filter_map(|size| Some((size.to_owned(), current(size)?))).collect()
}

impl Container {
    fn figures(&self, budget: Option<&mut Budget>) -> ContainerFigures {
        let read = |file: &str| self.cgroup.read(file);
        let number = |file: &str| limit_of(&read(file)).unwrap_or(0);
        ContainerFigures {
            id: self.id.clone(),
            cpu: cpu(&read("cpu.stat"), &read("cpu.pressure")),
            memory: memory(&self.cgroup),
            io: Io::parse(&read("io.stat"), &read("io.pressure")),
            hugepages: hugepages(&self.cgroup),
            details: budget.map(|budget| processes::look(&self.cgroup, self.init.pid(), budget)),
            processes: number("pids.current"),
            processes_limit: number("pids.max"),
            writable: self.rootfs.usage().unwrap_or_else(|error| {
                tracing::warn!(container = %self.id, "{error}");
                Usage::default()
            }),
        }
    }
}

impl Containers {
    /// All figures of this moment.
    pub async fn stats(&self, details: bool) -> Result<PodFigures, Failed> {
        let containers = self.all();
        blocking(move || {
            let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
            let root = |file: &str| read(&format!("{}/{file}", paths::CGROUPS));
            let pressure = |resource: &str| read(&format!("/proc/pressure/{resource}"));
            // Of all of them together.
            let mut budget = details.then(Budget::default);
            Ok(PodFigures {
                containers: containers.iter().map(|container| container.figures(budget.as_mut())).collect(),
                cpu: cpu(&root("cpu.stat"), &pressure("cpu")),
                memory: guest_memory(&read("/proc/meminfo"), &read("/proc/vmstat"), &pressure("memory")),
                interfaces: interfaces(&read("/proc/net/dev")),
                processes: limit_of(&Cgroup::of_pod().read("pids.current")).unwrap_or(0),
                io: Io::parse(&root("io.stat"), &pressure("io")),
            })
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_tables_are_read() {
        let stat = "usage_usec 900\nuser_usec 600\nsystem_usec 300\nnr_periods 4\nnr_throttled 2\nthrottled_usec 7\n";
        let told = cpu(stat, "");
        assert_eq!((told.usage, told.user, told.system), (900, 600, 300));
        assert_eq!((told.periods, told.throttled_periods, told.throttled), (4, 2, 7));
        assert_eq!(cpu("", ""), Cpu::default());

        let info =
            "MemTotal:         246012 kB\nMemFree:   100 kB\nInactive(file):   12 kB\nInactive:  99 kB\n";
        let memory = guest_memory(info, "pgfault 5\npgmajfault 1\noom_kill 3\n", "");
        assert_eq!(memory.limit, 246_012 * 1024);
        assert_eq!(memory.inactive_file, 12 * 1024);
        assert_eq!((memory.faults, memory.major_faults, memory.oom_kills), (5, 1, 3));

        let table = "\
Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
    lo:     100       1    0    0    0     0          0         0      100       1    0    0    0     0       0          0
  eth0:    2000      20    3    1    0     0          0         0     4000      40    5    2    0     0       0          0
";
        let received = Traffic { bytes: 2000, packets: 20, errors: 3, dropped: 1 };
        let sent = Traffic { bytes: 4000, packets: 40, errors: 5, dropped: 2 };
        let eth0 = Interface { name: "eth0".to_owned(), received, sent };
        assert_eq!(interfaces(table), [eth0]);
    }
}
