//! A root filesystem that the host mounts and virtio-fs shares: what containerd's other snapshotters give.

use std::{
    ffi::CString,
    io,
    path::{Path, PathBuf},
};

use rustix::mount::{MountFlags, mount};

use super::shared_dir::Place;
use crate::sys::{
    mount::{Attributes, Detached},
    namespace::HostNamespace,
    thread::blocking,
};

/// What mount(2) takes of options: one page, and of more it takes the beginning without a word.
const LONGEST_OPTIONS: usize = 4095;

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

/// On a thread whose working directory is its own.
fn mount_one(one: &RootMount, target: &Path) -> io::Result<()> {
    let (flags, mut data) = parse(&one.options);
    if data.len() > LONGEST_OPTIONS
        && let Some((directory, shorter)) = from_common_directory(&data)
    {
        std::env::set_current_dir(directory)?;
        data = shorter;
    }
    if data.len() > LONGEST_OPTIONS {
        let reason = format!("{} bytes of options: {LONGEST_OPTIONS} are possible", data.len());
        return Err(io::Error::new(io::ErrorKind::InvalidInput, reason));
    }
    let (kind, flags) =
        if one.kind == "bind" { ("none", flags | MountFlags::BIND) } else { (one.kind.as_str(), flags) };
    let data = CString::new(data)?;
    mount(&one.source, target, kind, flags, Some(data.as_c_str()))?;
    if let Some(flags) = of_remount(flags) {
        rustix::mount::mount_remount(target, flags, c"")?;
    }
    Ok(())
}

/// A bind mount takes no other flag at first. It then has those of the remount and no more, so all are named.
fn of_remount(flags: MountFlags) -> Option<MountFlags> {
    let others = flags.difference(MountFlags::BIND | MountFlags::REC);
    (flags.contains(MountFlags::BIND) && !others.is_empty()).then(|| MountFlags::BIND | others)
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

/// The same options with an overlay's lower directories as they are called from the directory that holds them all, as
/// containerd mounts many.
fn from_common_directory(options: &str) -> Option<(PathBuf, String)> {
    const LOWER: &str = "lowerdir=";
    let lower = options.split(',').find_map(|option| option.strip_prefix(LOWER))?;
    let holds_all = |directory: &&Path| {
        let holds =
            |layer| Path::new(layer).strip_prefix(directory).is_ok_and(|rest| !rest.as_os_str().is_empty());
        directory.is_absolute() && lower.split(':').all(holds)
    };
    let common = Path::new(lower.split(':').next()?).ancestors().find(holds_all)?;
    let relative = |layer| Some(Path::new(layer).strip_prefix(common).ok()?.to_str()?.to_owned());
    let relative: Vec<String> = lower.split(':').map(relative).collect::<Option<_>>()?;
    let options = options.replace(&format!("{LOWER}{lower}"), &format!("{LOWER}{}", relative.join(":")));
    Some((common.to_owned(), options))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_layers_are_called_from_the_directory_that_holds_them() {
        let options = "index=off,upperdir=/s/snapshots/9/fs,lowerdir=/s/snapshots/12/fs:/s/snapshots/3/fs";
        let (directory, shorter) = from_common_directory(options).unwrap();
        assert_eq!(directory, Path::new("/s/snapshots"));
        assert_eq!(shorter, "index=off,upperdir=/s/snapshots/9/fs,lowerdir=12/fs:3/fs");
        assert_eq!(from_common_directory("workdir=/w"), None);
        assert_eq!(from_common_directory("lowerdir=relative:other"), None);
    }

    #[test]
    fn a_bind_mount_keeps_all_its_flags() {
        let remount = |options: &[&str]| {
            let options: Vec<_> = options.iter().map(|option| (*option).to_owned()).collect();
            of_remount(parse(&options).0)
        };
        let expected = MountFlags::BIND | MountFlags::NOSUID | MountFlags::NODEV;
        assert_eq!(remount(&["rbind", "nosuid", "nodev"]), Some(expected));
        assert_eq!(remount(&["bind", "ro", "nosuid", "nodev"]), Some(expected | MountFlags::RDONLY));
        assert_eq!(remount(&["rbind", "rw"]), None);
        assert_eq!(remount(&["ro"]), None, "no bind mount");
    }

    #[test]
    fn options_are_flags_or_the_file_systems_own() {
        let options = ["ro", "workdir=/w", "lowerdir=/a:/b", "index=off", "rw"].map(str::to_owned);
        let (flags, data) = parse(&options);
        assert_eq!(flags, MountFlags::RDONLY);
        assert_eq!(data, "workdir=/w,lowerdir=/a:/b,index=off");
    }
}
