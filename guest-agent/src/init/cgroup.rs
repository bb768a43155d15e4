//! The unified cgroup hierarchy: every controller is available to the pod's containers.

use std::fs;

use crate::{
    cgroup::limit_of,
    error::{Failed, Step},
    paths,
};

/// What the agent takes once there are containers.
const OWN_NEED_KB: u64 = 4096;
/// Threads of the kernel, the agent and its workers. Of a guest's memory the kernel derives how many there may be in all: some
/// seven for each MiB.
const OWN_THREADS: u64 = 192;

/// Enables all controllers for `/pod` and for what lies in it.
pub fn prepare() -> Result<(), Failed> {
    enable_all(paths::CGROUPS)?;
    fs::create_dir_all(paths::POD_CGROUP).step(|| format!("create {}", paths::POD_CGROUP))?;
    enable_all(paths::POD_CGROUP)?;
    leave_room()?;
    leave_threads()
}

/// Lets the containers together have all memory but a little. When they want more, the kernel looks for its victim among
/// them, and where there is none left (a tmpfs holds the memory), they get no more; without the limit it would panic.
fn leave_room() -> Result<(), Failed> {
    let text = fs::read_to_string("/proc/meminfo").step(|| "read /proc/meminfo".to_owned())?;
    let Some(kilobytes) = available(&text) else { return Ok(()) };
    let file = format!("{}/memory.max", paths::POD_CGROUP);
    let limit = kilobytes.saturating_sub(OWN_NEED_KB).saturating_mul(1024);
    fs::write(&file, limit.to_string()).step(|| format!("write {limit} to {file}"))
}

/// Lets the containers together have all threads but some: a fork bomb must not keep the agent from making processes.
fn leave_threads() -> Result<(), Failed> {
    const ALL: &str = "/proc/sys/kernel/threads-max";
    let text = fs::read_to_string(ALL).step(|| format!("read {ALL}"))?;
    let Some(all) = limit_of(&text) else { return Ok(()) };
    let (file, limit) = (format!("{}/pids.max", paths::POD_CGROUP), for_containers(all));
    fs::write(&file, limit.to_string()).step(|| format!("write {limit} to {file}"))
}

fn for_containers(threads: u64) -> u64 {
    threads.saturating_sub(OWN_THREADS).max(threads / 2)
}

fn available(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.trim().strip_suffix("kB")?.trim().parse().ok()
}

fn enable_all(cgroup: &str) -> Result<(), Failed> {
    let available = fs::read_to_string(format!("{cgroup}/cgroup.controllers"))
        .step(|| format!("read the controllers of {cgroup}"))?;
    let wanted: Vec<String> = available.split_ascii_whitespace().map(|name| format!("+{name}")).collect();
    fs::write(format!("{cgroup}/cgroup.subtree_control"), wanted.join(" "))
        .step(|| format!("enable the controllers of {cgroup}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn available_memory_is_found() {
        let text = "MemTotal:         246012 kB\nMemFree:          201000 kB\nMemAvailable:     198340 kB\n";
        assert_eq!(available(text), Some(198_340));
        assert_eq!(available("MemTotal: 1 kB\n"), None);
    }

    #[test]
    fn containers_have_most_threads() {
        assert_eq!(for_containers(1454), 1262);
        assert_eq!(for_containers(200), 100);
    }
}
