//! Kernel parameters.

use std::{collections::HashMap, path::PathBuf};

use crate::error::{Error, Failed, Step};

/// What containers expect of a node.
const DEFAULTS: &[(&str, &str)] = &[
    // containerd's defaults for a pod's network namespace: ports below 1024 and ping need no privilege.
    ("net.ipv4.ip_unprivileged_port_start", "0"),
    ("net.ipv4.ping_group_range", "0 2147483647"),
    // What kubelet sets on a node, and what databases ask of one.
    ("vm.overcommit_memory", "1"),
    ("vm.max_map_count", "262144"),
    // Each stream of a container is a pipe of 256 pages, counted to root: past the limit of 16,384 pages for a user, root in
    // containers would get pipes of two pages.
    ("fs.pipe-user-pages-soft", "0"),
    ("fs.inotify.max_user_instances", "8192"),
    ("fs.inotify.max_user_watches", "524288"),
    ("kernel.keys.root_maxkeys", "1000000"),
    ("kernel.keys.root_maxbytes", "25000000"),
];

/// Sets the defaults; a kernel that lacks one is no reason not to boot.
pub fn set_defaults() {
    for (name, value) in DEFAULTS {
        if let Err(error) = set(name, value) {
            tracing::warn!("{error}");
        }
    }
}

/// Sets what a pod asks for: what the kernel does not take is the pod's mistake.
pub fn set_asked(sysctls: &HashMap<String, String>) -> Result<(), Error> {
    let set = |(name, value): (&String, &String)| set(name, value);
    sysctls.iter().try_for_each(set).map_err(|error| Error::invalid("sysctls", error))
}

/// Sets one parameter by its dotted name.
pub fn set(name: &str, value: &str) -> Result<(), Failed> {
    let path =
        path(name).ok_or_else(|| Failed::because(format!("set sysctl {name:?}"), "not a sysctl's name"))?;
    std::fs::write(path, value).step(|| format!("set sysctl {name} to {value:?}"))
}

/// The file of a parameter. As in sysctl(8), the first of a name's dots and slashes is what separates its parts, and the
/// other belongs to them: `net/ipv4/conf/eth0.100/forwarding` is `net.ipv4.conf.eth0/100.forwarding`, as kubelet has it.
fn path(name: &str) -> Option<PathBuf> {
    let slashed = name.find(['.', '/']).is_some_and(|first| name[first..].starts_with('/'));
    let swap = |c| match c {
        '.' => '/',
        '/' => '.',
        other => other,
    };
    let relative = if slashed { name.to_owned() } else { name.chars().map(swap).collect() };
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | ':' | '@');
    let component_is_fine =
        |component: &str| !component.is_empty() && component != ".." && component.chars().all(allowed);
    relative.split('/').all(component_is_fine).then(|| PathBuf::from("/proc/sys").join(relative))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_never_leads_out_of_proc_sys() {
        assert_eq!(path("kernel.shm_rmid_forced"), Some("/proc/sys/kernel/shm_rmid_forced".into()));
        for name in ["net/ipv4/conf/eth0.100/forwarding", "net.ipv4.conf.eth0/100.forwarding"] {
            assert_eq!(path(name), Some("/proc/sys/net/ipv4/conf/eth0.100/forwarding".into()));
        }
        for bad in
            ["net.//.kernel", "", "a..b", "../kernel", "net/../../self/mem", "/etc/passwd", "a b", "a\0"]
        {
            assert_eq!(path(bad), None, "{bad:?}");
        }
    }
}
