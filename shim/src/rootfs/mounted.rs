//! A root filesystem that the host mounts and virtio-fs shares: what containerd's other snapshotters give.

use std::{ffi::CString, io, path::Path};

use rustix::mount::{MountFlags, mount};

use super::shared_dir::Place;
use crate::sys::{
    mount::{Attributes, Detached},
    namespace::HostNamespace,
    thread::blocking,
};

/// One mount, as a snapshotter describes it.
#[derive(Debug, Clone)]
pub struct RootMount {
    /// Type of the file system, or `bind`.
    pub kind: String,
    /// Device, or directory.
    pub source: String,
    /// Options as mount(8) has them.
    pub options: Vec<String>,
}

/// Mounts them on top of each other, and attaches the result at the target. They are made where the host's paths
/// mean what the snapshotter meant, in a copy of its mount namespace, so that the host's own stays as it is.
///
/// # Errors
/// A mount fails; the text names it.
pub async fn attach(host: &HostNamespace, mounts: Vec<RootMount>, place: Place) -> io::Result<()> {
    let target = place.seen.clone();
    let tree = host
        .run_in_copy(move || {
            place.make_directory()?;
            for one in &mounts {
                mount_one(one, &place.behind).map_err(|error| {
                    io::Error::new(error.kind(), format!("mounting {} {}: {error}", one.kind, one.source))
                })?;
            }
            let tree = Detached::clone_of(&place.behind, true)?;
            tree.change(Attributes { set: 0, propagation: libc::MS_PRIVATE, recursive: true })?;
            Ok(tree)
        })
        .await?;
    blocking(move || tree.attach(&target)).await
}

fn mount_one(one: &RootMount, target: &Path) -> io::Result<()> {
    let (flags, data) = parse(&one.options);
    let (kind, flags) =
        if one.kind == "bind" { ("none", flags | MountFlags::BIND) } else { (one.kind.as_str(), flags) };
    let data = CString::new(data)?;
    mount(&one.source, target, kind, flags, Some(data.as_c_str()))?;
    if flags.contains(MountFlags::BIND | MountFlags::RDONLY) {
        // A bind mount takes no other flag at first.
        rustix::mount::mount_remount(target, MountFlags::BIND | MountFlags::RDONLY, c"")?;
    }
    Ok(())
}

fn parse(options: &[String]) -> (MountFlags, String) {
    let mut flags = MountFlags::empty();
    let mut data = Vec::new();
    for option in options {
        match option.as_str() {
            "ro" => flags |= MountFlags::RDONLY,
            "nosuid" => flags |= MountFlags::NOSUID,
            "nodev" => flags |= MountFlags::NODEV,
            "noexec" => flags |= MountFlags::NOEXEC,
            "noatime" => flags |= MountFlags::NOATIME,
            "bind" => flags |= MountFlags::BIND,
            "rbind" => flags |= MountFlags::BIND | MountFlags::REC,
            "rw" | "defaults" => {}
            other => data.push(other),
        }
    }
    (flags, data.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_flags_or_the_file_systems_own() {
        let options = ["ro", "workdir=/w", "lowerdir=/a:/b", "index=off", "rw"].map(str::to_owned);
        let (flags, data) = parse(&options);
        assert_eq!(flags, MountFlags::RDONLY);
        assert_eq!(data, "workdir=/w,lowerdir=/a:/b,index=off");
    }
}
