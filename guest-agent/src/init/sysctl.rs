//! Kernel parameters.

use std::path::PathBuf;

use crate::error::{Failed, Step};

/// What containers expect of a node.
const DEFAULTS: &[(&str, &str)] = &[
    // containerd's defaults for a pod's network namespace: ports below 1024 and ping need no privilege.
    ("net.ipv4.ip_unprivileged_port_start", "0"),
    ("net.ipv4.ping_group_range", "0 2147483647"),
    // What kubelet sets on a node, and what databases ask of one.
    ("vm.overcommit_memory", "1"),
    ("vm.max_map_count", "262144"),
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

/// Sets one parameter by its dotted name.
pub fn set(name: &str, value: &str) -> Result<(), Failed> {
    let path =
        path(name).ok_or_else(|| Failed::because(format!("set sysctl {name:?}"), "not a sysctl's name"))?;
    std::fs::write(path, value).step(|| format!("set sysctl {name} to {value:?}"))
}

/// The file of a parameter. A name with slashes is taken as sysctl(8) does: dots then belong to the name, as in
/// `net/ipv4/conf/eth0.100/forwarding`.
fn path(name: &str) -> Option<PathBuf> {
    let relative = if name.contains('/') { name.to_owned() } else { name.replace('.', "/") };
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
        assert_eq!(
            path("net/ipv4/conf/eth0.100/forwarding"),
            Some("/proc/sys/net/ipv4/conf/eth0.100/forwarding".into())
        );
        for bad in ["", "a..b", "../kernel", "net/../../self/mem", "/etc/passwd", "a b", "a\0"] {
            assert_eq!(path(bad), None, "{bad:?}");
        }
    }
}
