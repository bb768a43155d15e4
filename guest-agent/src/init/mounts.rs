//! The guest's own file systems.

use std::{fs, path::Path};

use nix::mount::{MsFlags, mount};

use crate::{
    error::{Failed, Step},
    paths,
};

const NEW_ROOT: &str = "/newroot";

struct Mount {
    source: &'static str,
    target: &'static str,
    kind: &'static str,
    flags: MsFlags,
    options: &'static str,
}

const fn no_exec() -> MsFlags {
    MsFlags::MS_NOSUID.union(MsFlags::MS_NODEV).union(MsFlags::MS_NOEXEC)
}

/// In the order in which they lie on each other.
const MOUNTS: &[Mount] = &[
    Mount { source: "proc", target: "proc", kind: "proc", flags: no_exec(), options: "" },
    Mount { source: "sysfs", target: "sys", kind: "sysfs", flags: no_exec(), options: "" },
    Mount {
        source: "cgroup2",
        target: "sys/fs/cgroup",
        kind: "cgroup2",
        flags: no_exec(),
        options: "nsdelegate",
    },
    Mount {
        source: "devtmpfs",
        target: "dev",
        kind: "devtmpfs",
        flags: MsFlags::MS_NOSUID,
        options: "mode=0755",
    },
    Mount {
        source: "devpts",
        target: "dev/pts",
        kind: "devpts",
        flags: MsFlags::MS_NOSUID.union(MsFlags::MS_NOEXEC),
        options: "mode=0620,ptmxmode=0666,gid=5",
    },
    Mount {
        source: "run",
        target: "run",
        kind: "tmpfs",
        flags: MsFlags::MS_NOSUID.union(MsFlags::MS_NODEV),
        options: "mode=0755",
    },
];

/// Makes a root of its own and moves there: in the initramfs's root, pivot_root fails, and containers need it.
pub fn enter_root() -> Result<(), Failed> {
    fs::create_dir_all(NEW_ROOT).step(|| format!("create {NEW_ROOT}"))?;
    mount_one("root", Path::new(NEW_ROOT), "tmpfs", MsFlags::MS_NODEV, "mode=0755")?;
    for entry in MOUNTS {
        let target = Path::new(NEW_ROOT).join(entry.target);
        fs::create_dir_all(&target).step(|| format!("create {}", target.display()))?;
        mount_one(entry.source, &target, entry.kind, entry.flags, entry.options)?;
    }
    // The program's name leads to the text that PID 1 runs: nobody needs it any more.
    let _ = fs::remove_file("/init");
    std::env::set_current_dir(NEW_ROOT).step(|| format!("enter {NEW_ROOT}"))?;
    let nothing = None::<&str>;
    mount(Some("."), "/", nothing, MsFlags::MS_MOVE, nothing).step(|| "move the root mount".to_owned())?;
    std::os::unix::fs::chroot(".").step(|| "chroot".to_owned())?;
    std::env::set_current_dir("/").step(|| "enter /".to_owned())
}

/// Makes the agent's directories and mounts the share.
pub fn attach_devices() -> Result<(), Failed> {
    for directory in
        [paths::SHARE, paths::POD, paths::LAYERS, paths::SCRATCH, paths::STATE, "/run/a3s/containers"]
    {
        fs::create_dir_all(directory).step(|| format!("create {directory}"))?;
    }
    let tag = a3s_box_proto::ports::SHARE_TAG;
    mount_one(tag, Path::new(paths::SHARE), "virtiofs", MsFlags::MS_NODEV, "")
}

/// Mounts a file system; the step of its error names it.
pub fn mount_one(
    source: &str,
    target: &Path,
    kind: &str,
    flags: MsFlags,
    options: &str,
) -> Result<(), Failed> {
    mount(Some(source), target, Some(kind), flags, Some(options))
        .step(|| format!("mount {kind} {source} at {}", target.display()))
}
