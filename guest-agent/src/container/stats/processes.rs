//! What has to be looked for process by process.

use std::{fs, path::Path};

use crate::cgroup::Cgroup;

/// Width of the names' column in /proc/PID/limits.
const NAME_WIDTH: usize = 26;
/// More processes than this are counted, and not looked into.
const LOOKED_INTO: usize = 1024;

/// How many descriptors may still be looked at. A container has as many as it likes, and processes can share theirs: what is looked
/// at must not grow with that, or whoever waits for the figures gives up while a thread of few goes on.
#[derive(Debug)]
pub struct Budget(usize);

impl Default for Budget {
    fn default() -> Self {
        Self(65_536)
    }
}

/// A container's processes.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Details {
    /// Without their threads.
    pub processes: u64,
    /// Open files of all of them.
    pub file_descriptors: u64,
    /// Those that are sockets, of as many as are looked at.
    pub sockets: u64,
    /// Of the init process: name, and value; the largest number is none.
    pub soft_limits: Vec<(String, u64)>,
}

/// Looks at the processes of a cgroup; what ends meanwhile is left out.
pub fn look(cgroup: &Cgroup, init: i32, budget: &mut Budget) -> Details {
    let processes = cgroup.processes();
    let mut details = Details {
        processes: processes.len() as u64,
        soft_limits: soft_limits(&fs::read_to_string(format!("/proc/{init}/limits")).unwrap_or_default()),
        ..Details::default()
    };
    for pid in processes.iter().take(LOOKED_INTO) {
        let open = Path::new("/proc").join(pid.to_string()).join("fd");
        // The kernel tells their number so (since 6.2), however many they are.
        details.file_descriptors += fs::metadata(&open).map_or(0, |directory| directory.len());
        details.sockets += sockets(&open, budget);
    }
    details
}

/// How many of a process's descriptors are sockets.
fn sockets(open: &Path, budget: &mut Budget) -> u64 {
    let mut count = 0;
    for file in fs::read_dir(open).into_iter().flatten().filter_map(Result::ok) {
        let Some(left) = budget.0.checked_sub(1) else { break };
        budget.0 = left;
        let target = fs::read_link(file.path()).unwrap_or_default();
        count += u64::from(target.to_string_lossy().starts_with("socket:"));
    }
    count
}

/// The kernel's own names, as words of a label: `max_open_files`.
fn soft_limits(text: &str) -> Vec<(String, u64)> {
    let limit = |line: &str| {
        let (name, rest) = line.split_at_checked(NAME_WIDTH)?;
        let soft = rest.split_ascii_whitespace().next()?;
        let value = if soft == "unlimited" { u64::MAX } else { soft.parse().ok()? };
        Some((name.trim().to_ascii_lowercase().replace(' ', "_"), value))
    };
    text.lines().filter_map(limit).collect()
}

#[cfg(test)]
mod tests {
    use std::{fs::File, os::unix::net::UnixStream};

    use super::*;

    #[test]
    fn no_more_descriptors_are_looked_at_than_the_budget_has() {
        let own = Path::new("/proc/self/fd");
        let _sockets = [UnixStream::pair().unwrap(), UnixStream::pair().unwrap()];
        let _files = [(); 4].map(|()| File::open("/dev/null").unwrap());
        let mut plenty = Budget::default();
        assert!(sockets(own, &mut plenty) >= 4);
        assert!((65_536 - 4096..65_536 - 8).contains(&plenty.0), "{plenty:?}");
        let mut two = Budget(2);
        assert!(sockets(own, &mut two) <= 2);
        assert_eq!(two.0, 0);
        assert_eq!(sockets(own, &mut two), 0);
    }

    #[test]
    fn limits_have_the_kernels_names() {
        let text = "Limit                     Soft Limit           Hard Limit           Units     \n\
                    Max cpu time              unlimited            unlimited            seconds   \n\
                    Max open files            1024                 524288               files     \n";
        let expected = [("max_cpu_time".to_owned(), u64::MAX), ("max_open_files".to_owned(), 1024)];
        assert_eq!(soft_limits(text), expected);
    }
}
