//! The unified cgroup hierarchy: every controller is available to the pod's containers.

use std::fs;

use crate::{
    error::{Failed, Step},
    paths,
};

/// Enables all controllers for `/pod` and for what lies in it.
pub fn prepare() -> Result<(), Failed> {
    enable_all(paths::CGROUPS)?;
    fs::create_dir_all(paths::POD_CGROUP).step(|| format!("create {}", paths::POD_CGROUP))?;
    enable_all(paths::POD_CGROUP)
}

fn enable_all(cgroup: &str) -> Result<(), Failed> {
    let available = fs::read_to_string(format!("{cgroup}/cgroup.controllers"))
        .step(|| format!("read the controllers of {cgroup}"))?;
    let wanted: Vec<String> = available.split_ascii_whitespace().map(|name| format!("+{name}")).collect();
    fs::write(format!("{cgroup}/cgroup.subtree_control"), wanted.join(" "))
        .step(|| format!("enable the controllers of {cgroup}"))
}
