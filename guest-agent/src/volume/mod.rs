//! What containers mount besides their root filesystem: objects of the pod, and volumes.

pub mod block;
pub mod memory;
pub mod mirror;

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use a3s_box_proto::ports::{POD_MEMORY, POD_OBJECTS, SHARE_VOLUMES};
use nix::mount::{MntFlags, MsFlags, umount2};

use crate::{
    error::{Failed, Step},
    init::mounts::mount_one,
    paths,
};

/// Where an object of the pod lies, if it is one.
pub fn object(name: &str) -> Option<PathBuf> {
    POD_OBJECTS.iter().any(|(_, object)| *object == name).then(|| Path::new(paths::POD).join(name))
}

/// Files that the pod's containers share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodFiles {
    /// /etc/hostname
    pub hostname: String,
    /// /etc/resolv.conf
    pub resolv_conf: String,
    /// /etc/hosts
    pub hosts: String,
    /// Size of /dev/shm.
    pub shm_bytes: u64,
}

/// Makes the pod's objects. Doing it again changes their content, also where containers have them mounted.
pub fn provide(files: &PodFiles) -> Result<(), Failed> {
    let hostname = format!("{}\n", files.hostname);
    for (name, content) in
        [("hostname", &hostname), ("resolv.conf", &files.resolv_conf), ("hosts", &files.hosts)]
    {
        let path = Path::new(paths::POD).join(name);
        // In place: a bind mount holds the file, not its name.
        File::create(&path)
            .and_then(|mut file| file.write_all(content.as_bytes()))
            .step(|| format!("write {}", path.display()))?;
    }
    let shm = Path::new(paths::POD).join(POD_MEMORY);
    let is_new = !shm.exists();
    fs::create_dir_all(&shm).step(|| format!("create {}", shm.display()))?;
    let size = if files.shm_bytes == 0 { String::new() } else { format!(",size={}", files.shm_bytes) };
    // No others: programs map their code there, and runc shows containerd's memory without its flags.
    let flags = if is_new { MsFlags::empty() } else { MsFlags::MS_REMOUNT };
    mount_one("shm", &shm, "tmpfs", flags, &format!("mode=1777{size}")).inspect_err(|_| {
        if is_new {
            // Only what is mounted can be mounted anew.
            let _ = fs::remove_dir(&shm);
        }
    })
}

/// Walks into what a bind mount shows. A directory of the share becomes a mount of its own when that is done first:
/// here, once for all containers. Each of them doing so by itself would get a file system of its own, which shares no
/// cache, lock, socket or pipe with those of the others.
pub fn enter(source: &Path) -> io::Result<()> {
    let flags = libc::O_PATH | libc::O_DIRECTORY | libc::O_NOFOLLOW;
    match OpenOptions::new().read(true).custom_flags(flags).open(source) {
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => Ok(()),
        opened => opened.map(drop),
    }
}

/// The pod's volumes that are more than a directory of the share.
#[derive(Debug, Default)]
pub struct Volumes {
    /// Copies of volumes of the share.
    pub mirrors: mirror::Mirrors,
    /// Those in the guest's own memory.
    pub memories: memory::Memories,
}

impl Volumes {
    /// Unmounts volumes of the share that no container uses any more, so that the host can.
    pub fn release(&self, names: &[String]) -> Result<(), Failed> {
        for name in names {
            self.mirrors.forget(name)?;
            unmount_below(&Path::new(paths::SHARE).join(SHARE_VOLUMES).join(name))?;
        }
        drop_dentries()
    }
}

/// Before looking again: the kernel tells nobody when the last reference to a mount has gone, or a disk is ready.
pub fn pause(time: Duration) {
    let timeout = nix::poll::PollTimeout::try_from(time).unwrap_or(nix::poll::PollTimeout::ZERO);
    let _ = nix::poll::poll(&mut [], timeout);
}

/// Looked-up names are references of virtio-fs: with them the host's plain umount would say "busy".
pub fn drop_dentries() -> Result<(), Failed> {
    fs::write("/proc/sys/vm/drop_caches", "2").step(|| "drop dentries".to_owned())
}

/// Unmounts what virtio-fs mounted by itself below a directory of the share: a mount of the host that is announced as
/// one becomes a mount here as soon as somebody walks into it, and the host's could not be unmounted.
pub fn unmount_below(directory: &Path) -> Result<(), Failed> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").step(|| "read mountinfo".to_owned())?;
    for target in mounts_below(&mounts, directory).into_iter().rev() {
        umount2(&target, MntFlags::UMOUNT_NOFOLLOW).step(|| format!("unmount {}", target.display()))?;
    }
    Ok(())
}

/// Mount points at and below a directory, parents first.
fn mounts_below(mountinfo: &str, directory: &Path) -> Vec<PathBuf> {
    mountinfo
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .map(|point| PathBuf::from(unescape(point)))
        .filter(|point| point.starts_with(directory))
        .collect()
}

/// The kernel writes blanks and backslashes of a path as three octal digits.
fn unescape(field: &str) -> String {
    let mut text = String::new();
    let mut rest = field;
    while let Some((before, after)) = rest.split_once('\\') {
        text.push_str(before);
        let code = after.get(..3).and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match code {
            Some(code) => {
                text.push(char::from(code));
                rest = &after[3..];
            }
            None => {
                text.push('\\');
                rest = after;
            }
        }
    }
    text + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_points_are_found_whatever_their_names_hold() {
        let mountinfo = "\
21 1 0:20 / /run/a3s/share rw - virtiofs share rw
22 21 0:31 / /run/a3s/share/volumes/c1/a\\040b rw - virtiofs none rw
23 22 0:32 / /run/a3s/share/volumes/c1/a\\040b/c rw - virtiofs none rw
24 21 0:33 / /run/a3s/share/volumes/c10/x rw - virtiofs none rw
";
        let below = mounts_below(mountinfo, Path::new("/run/a3s/share/volumes/c1"));
        assert_eq!(
            below,
            [
                PathBuf::from("/run/a3s/share/volumes/c1/a b"),
                PathBuf::from("/run/a3s/share/volumes/c1/a b/c")
            ]
        );
        assert_eq!(unescape("a\\134b\\x"), "a\\b\\x");
    }

    #[test]
    fn only_the_pods_objects_can_be_named() {
        assert_eq!(object("shm"), Some("/run/a3s/pod/shm".into()));
        assert_eq!(object("../../etc"), None);
    }
}
