//! The cgroup of the pod's processes on the host: shim, VMM, helpers. Version 1 and 2, side by side where a machine
//! has both.

mod cpuset;
mod hierarchy;
mod oom_score;
mod path;

use std::{
    fs::{self, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};
use tracing::{debug, warn};

pub use cpuset::Cpuset;
pub use oom_score::stand_behind_parent;
pub use path::of_pod;

use crate::sys::process::Identity;
use hierarchy::Hierarchy;

/// Zombies leave a cgroup only when they are reaped, by others where their parent died.
const REMOVAL_BOUND: Duration = Duration::from_secs(2);

/// The pod's cgroup: one directory in each hierarchy of the machine.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cgroup {
    directories: Vec<PathBuf>,
}

/// What a cgroup used.
#[derive(Debug, Clone, Copy, Default)]
pub struct Usage {
    /// Processor time since the cgroup was made.
    pub cpu_usec: u64,
    /// Memory charged now.
    pub memory_bytes: u64,
}

impl Cgroup {
    /// Makes the cgroup and moves this process there; what it starts later is born there. A hierarchy that does not
    /// let us is left out with a warning.
    ///
    /// # Errors
    /// The machine has cgroups, and none lets us.
    pub fn join(path: &Path) -> io::Result<Self> {
        let mut cgroup = Self::default();
        let mut refused = None;
        for hierarchy in hierarchy::all()? {
            match hierarchy.join(path) {
                Ok(directory) => cgroup.directories.push(directory),
                Err(error) => {
                    warn!(hierarchy = %hierarchy.root.display(), %error, "not in this cgroup");
                    refused = Some(error);
                }
            }
        }
        match refused {
            Some(error) if cgroup.directories.is_empty() => Err(error),
            _ => Ok(cgroup),
        }
    }

    /// Moves this process back to the given cgroups, kills what else is there, and removes the directories.
    ///
    /// # Errors
    /// A directory stays.
    pub fn leave(self, origin: &Origin) -> io::Result<()> {
        let mut moved = Ok(());
        for (root, directory) in &origin.0 {
            if self.directories.iter().any(|ours| ours.starts_with(root)) {
                // The service that started us may be gone, and its cgroup with it.
                moved = moved.and(enter(directory).or_else(|_| enter(root)));
            }
        }
        moved.and(self.destroy())
    }

    /// Kills whatever is left in the cgroup, and removes it. A directory that stays keeps no other.
    ///
    /// # Errors
    /// A directory stays: the first that does.
    pub fn destroy(self) -> io::Result<()> {
        let deadline = Instant::now() + REMOVAL_BOUND;
        let mut removed = Ok(());
        for directory in &self.directories {
            let this = remove(directory, deadline)
                .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", directory.display())));
            removed = removed.and(this);
        }
        removed
    }

    /// What the pod used so far; zero where no controller counts.
    pub fn usage(&self) -> Usage {
        let mut usage = Usage::default();
        for directory in &self.directories {
            let number = |file: &str| -> Option<u64> {
                fs::read_to_string(directory.join(file)).ok()?.trim().parse().ok()
            };
            let cpu = fs::read_to_string(directory.join("cpu.stat")).ok();
            let v2 = cpu
                .as_deref()
                .and_then(|text| text.lines().next()?.strip_prefix("usage_usec ")?.parse().ok());
            let v1 = number("cpuacct.usage").map(|nanos| nanos / 1000);
            usage.cpu_usec = usage.cpu_usec.max(v2.or(v1).unwrap_or_default());
            let memory = number("memory.current").or_else(|| number("memory.usage_in_bytes"));
            usage.memory_bytes = usage.memory_bytes.max(memory.unwrap_or_default());
        }
        usage
    }
}

/// Limits that a cgroup of the host carries.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Limits {
    /// It has a quota of processor time.
    pub cpu: bool,
    /// Bytes of memory; none where it has no limit.
    pub memory: Option<u64>,
}

/// Reads which limits the parent of a pod's cgroup has.
///
/// # Errors
/// The mount table cannot be read.
pub fn limits_above(path: &Path) -> io::Result<Limits> {
    let mut limits = Limits::default();
    let Some(parent) = path.parent() else { return Ok(limits) };
    for hierarchy in hierarchy::all()? {
        let number = |file: &str| {
            fs::read_to_string(hierarchy.root.join(parent).join(file)).ok().and_then(|text| limit(&text))
        };
        limits.cpu |= number("cpu.max").or_else(|| number("cpu.cfs_quota_us")).is_some();
        limits.memory =
            limits.memory.or_else(|| number("memory.max")).or_else(|| number("memory.limit_in_bytes"));
    }
    Ok(limits)
}

/// The first word of a limit's file, if it limits: not "max", not -1, not version 1's largest page count.
fn limit(text: &str) -> Option<u64> {
    text.split_whitespace().next()?.parse().ok().filter(|limit| *limit < 1 << 62)
}

/// Moves this process.
fn enter(directory: &Path) -> io::Result<()> {
    OpenOptions::new().write(true).open(directory.join("cgroup.procs"))?.write_all(b"0")
}

fn remove(directory: &Path, deadline: Instant) -> io::Result<()> {
    loop {
        match fs::remove_dir(directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy && Instant::now() < deadline => {
                kill_all(directory);
                // There is no event for the moment in which a zombie leaves; the caller's thread may block.
                std::thread::park_timeout(Duration::from_millis(5));
            }
            other => return other,
        }
    }
}

fn kill_all(directory: &Path) {
    let Ok(processes) = fs::read_to_string(directory.join("cgroup.procs")) else { return };
    let own = i32::try_from(std::process::id()).ok();
    for pid in processes.lines().filter_map(|line| line.parse().ok()) {
        if Some(pid) != own && Identity::of(pid).is_some_and(Identity::kill) {
            debug!(pid, "killed a process left in the pod's cgroup");
        }
    }
}

/// The cgroups that this process was started in: root of the hierarchy, and directory.
#[derive(Debug, Clone, Default)]
pub struct Origin(Vec<(PathBuf, PathBuf)>);

impl Origin {
    /// Remembers where this process is now.
    ///
    /// # Errors
    /// `/proc` is not there.
    pub fn capture() -> io::Result<Self> {
        let table = fs::read_to_string("/proc/self/cgroup")?;
        let of = |hierarchy: &Hierarchy| {
            let line = table.lines().find(|line| hierarchy.is_named_in(line))?;
            let path = line.splitn(3, ':').nth(2)?;
            Some((hierarchy.root.clone(), hierarchy.root.join(path.trim_start_matches('/'))))
        };
        Ok(Self(hierarchy::all()?.iter().filter_map(of).collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cgroup_is_left_for_the_root_where_its_origin_is_gone() {
        let root = tempfile::tempdir().unwrap();
        let (stays, goes) = (root.path().join("stays"), root.path().join("goes"));
        fs::create_dir_all(stays.join("child")).unwrap();
        fs::create_dir(&goes).unwrap();
        fs::write(root.path().join("cgroup.procs"), "").unwrap();
        let origin = Origin(vec![(root.path().to_owned(), root.path().join("system.slice/gone"))]);
        let cgroup = Cgroup { directories: vec![stays.clone(), goes.clone()] };
        let error = cgroup.leave(&origin).unwrap_err().to_string();
        assert_eq!(fs::read_to_string(root.path().join("cgroup.procs")).unwrap(), "0");
        assert!(error.starts_with(&stays.display().to_string()), "{error}");
        assert!(!goes.exists(), "one that stays kept it");
    }

    #[test]
    fn only_a_true_limit_counts() {
        assert_eq!(limit("150000 100000\n"), Some(150_000));
        for none in ["max 100000\n", "-1\n", "max\n", "9223372036854771712\n", ""] {
            assert_eq!(limit(none), None, "{none:?}");
        }
    }
}
