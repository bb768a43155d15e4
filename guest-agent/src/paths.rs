//! Where things are in the guest.

use std::path::PathBuf;

use a3s_box_proto::{ids::ContainerId, ports};

/// Files and the shared memory of the pod.
pub const POD: &str = "/run/a3s/pod";
/// Where layers are mounted, one numbered directory each.
pub const LAYERS: &str = "/run/a3s/layers";
/// Where images are mounted that containers use as volumes, one numbered directory each.
pub const IMAGES: &str = "/run/a3s/images";
/// Where the scratch disk is mounted.
pub const SCRATCH: &str = "/run/a3s/scratch";
/// libcontainer's state. Short: a container's directory here holds a socket, whose path has 107 bytes at most.
pub const STATE: &str = "/run/a3s/lc";
/// The unified cgroup hierarchy.
pub const CGROUPS: &str = "/sys/fs/cgroup";
/// The cgroup of the pod's containers.
pub const POD_CGROUP: &str = "/sys/fs/cgroup/pod";

/// Where a container's configuration and root filesystem are.
pub fn bundle(id: &ContainerId) -> PathBuf {
    PathBuf::from(format!("/run/a3s/containers/{id}"))
}

/// Where a container's root filesystem is mounted.
pub fn rootfs(id: &ContainerId) -> PathBuf {
    bundle(id).join("rootfs")
}

/// Where the pod's shared directory is mounted.
pub const SHARE: &str = ports::GUEST_SHARE;
