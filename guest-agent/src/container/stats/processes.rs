//! What has to be looked for process by process.

use std::fs;

use crate::cgroup::Cgroup;

/// Width of the names' column in /proc/PID/limits.
const NAME_WIDTH: usize = 26;
/// More processes than this are counted, and not looked into.
const LOOKED_INTO: usize = 1024;

/// A container's processes.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Details {
    /// Without their threads.
    pub processes: u64,
    /// Open files of all of them.
    pub file_descriptors: u64,
    /// Those that are sockets.
    pub sockets: u64,
    /// Of the init process: name, and value; the largest number is none.
    pub soft_limits: Vec<(String, u64)>,
}

/// Looks at the processes of a cgroup; what ends meanwhile is left out.
pub fn look(cgroup: &Cgroup, init: i32) -> Details {
    let processes = cgroup.processes();
    let mut details = Details {
        processes: processes.len() as u64,
        soft_limits: soft_limits(&fs::read_to_string(format!("/proc/{init}/limits")).unwrap_or_default()),
        ..Details::default()
    };
    for pid in processes.iter().take(LOOKED_INTO) {
        let Ok(open) = fs::read_dir(format!("/proc/{pid}/fd")) else { continue };
        for file in open.filter_map(Result::ok) {
            details.file_descriptors += 1;
            let target = fs::read_link(file.path()).unwrap_or_default();
            details.sockets += u64::from(target.to_string_lossy().starts_with("socket:"));
        }
    }
    details
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
    use super::*;

    #[test]
    fn limits_have_the_kernels_names() {
        let text = "Limit                     Soft Limit           Hard Limit           Units     \n\
                    Max cpu time              unlimited            unlimited            seconds   \n\
                    Max open files            1024                 524288               files     \n";
        let expected = [("max_cpu_time".to_owned(), u64::MAX), ("max_open_files".to_owned(), 1024)];
        assert_eq!(soft_limits(text), expected);
    }
}
