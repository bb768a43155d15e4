//! Kernel parameters.

use std::collections::HashMap;

use a3s_box_proto::sysctl;

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
    let path = sysctl::path(name)
        .map_err(|problem| Failed::because(format!("set sysctl {name:?}"), problem.to_string()))?;
    std::fs::write(path, value).step(|| format!("set sysctl {name} to {value:?}"))
}
