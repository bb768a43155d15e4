//! Looks up a host path that a container mounts.

use std::{
    fs, io,
    os::fd::{AsRawFd, OwnedFd},
    path::{Path, PathBuf},
    time::Duration,
};

use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, StatVfsMountFlags, StatxFlags, fstatfs, fstatvfs, open, statx,
};
use tokio::time::timeout;

use crate::{
    error::{Error, Result},
    sys::{
        mount::{Attributes, Detached, table},
        namespace::HostNamespace,
    },
};

use super::{
    kubelet::{Plugin, plugin},
    memory::{self, Memory},
    mirror,
};

/// A lookup takes longer only where a file system hangs.
const LOOKUP_BOUND: Duration = Duration::from_secs(20);

/// File systems through which a kernel speaks, whatever the path at which they are mounted: proc, sysfs, cgroup (both
/// versions), debugfs, tracefs, securityfs.
const KERNELS: [i64; 7] =
    [0x9fa0, 0x6265_6572, 0x0027_e0eb, 0x6367_7270, 0x6462_6720, 0x7472_6163, 0x7363_6673];

/// What a container may do to a volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Everything.
    ReadWrite,
    /// Not write to the mount itself; what is mounted below it stays as it is.
    ReadOnly,
    /// Write nowhere.
    RecursiveReadOnly,
}

/// A bind mount of a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bind {
    /// The path on the host.
    pub source: PathBuf,
    /// What the container may do.
    pub access: Access,
    /// With what is mounted below it.
    pub recursive: bool,
    /// What the host mounts below it later is seen.
    pub follows_host: bool,
}

/// Directories whose content no container may see, with the one below them that it may.
#[derive(Debug, Clone)]
pub struct Forbidden {
    /// Our own state: other pods, records, images.
    pub directories: Vec<PathBuf>,
    /// The pod's own.
    pub except: PathBuf,
}

/// What tells one volume from another: containers that mount the same share its files, locks and memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    device: u64,
    inode: u64,
    /// What the source's own mount forbids.
    flags: StatVfsMountFlags,
    /// The guest has a copy of it.
    mirrored: bool,
    /// Where other mounts lie below it: which mount it is of, and what may be done there, for each container's access
    /// to those is settled on the host.
    tree: Option<(u64, Access, bool)>,
}

impl Identity {
    /// Whether all of it is one mount, of which the guest can make each container see what it may.
    pub fn is_one_mount(&self) -> bool {
        self.tree.is_none()
    }

    /// Whether the guest has a copy of it.
    pub fn is_mirrored(&self) -> bool {
        self.mirrored
    }

    /// Whether even the host may not write there.
    pub fn is_read_only(&self) -> bool {
        self.flags.contains(StatVfsMountFlags::RDONLY)
    }
}

/// A source that was found, and cloned: attached nowhere yet.
#[derive(Debug)]
pub struct Found {
    /// Directory, or file.
    pub kind: FileType,
    /// Which one.
    pub identity: Identity,
    /// Where it truly is.
    pub resolved: PathBuf,
    /// The clone; read-only where the container may not write.
    pub tree: Detached,
    /// What the guest has in its own memory instead.
    pub memory: Option<Memory>,
}

/// Looks a source up where the host's paths mean what the caller meant.
///
/// # Errors
/// The source is not there, forbidden, or neither file nor directory.
pub async fn look_up(
    host: &HostNamespace,
    bind: Bind,
    limits: mirror::Limits,
    forbidden: &Forbidden,
) -> Result<Found> {
    let object = format!("mount source {}", bind.source.display());
    let found = match timeout(LOOKUP_BOUND, host.run(move || find(&bind, limits))).await {
        Ok(result) => result.map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => Error::invalid(&object, "it does not exist"),
            io::ErrorKind::Unsupported => Error::invalid(&object, error.to_string()),
            _ => Error::Host { step: format!("opening {object}"), source: error },
        })?,
        Err(late) => return Err(Error::Host { step: format!("opening {object}"), source: late.into() }),
    };
    if is_forbidden(&found.resolved, forbidden) {
        let reason = format!("it is the runtime's own ({})", found.resolved.display());
        return Err(Error::invalid(object, reason));
    }
    if !matches!(found.kind, FileType::Directory | FileType::RegularFile) {
        let name = name(found.kind);
        let reason = format!("a {name} cannot be shared with a MicroVM: directories and regular files can");
        return Err(Error::invalid(object, reason));
    }
    Ok(found)
}

/// The path is looked up once: what is checked is what is attached.
fn find(bind: &Bind, limits: mirror::Limits) -> io::Result<Found> {
    let pinned = open(&bind.source, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    let by_descriptor = format!("/proc/thread-self/fd/{}", pinned.as_raw_fd());
    let resolved = fs::read_link(&by_descriptor)?;
    if KERNELS.contains(&fstatfs(&pinned)?.f_type) {
        let reason =
            format!("it is the host's kernel's ({}), and the container runs on another", resolved.display());
        return Err(io::Error::new(io::ErrorKind::Unsupported, reason));
    }
    let mut identity = identify(&pinned, &resolved, bind)?;
    if bind.access != Access::ReadWrite && plugin(&resolved) == Some(Plugin::Written) {
        identity.mirrored = mirror::is_possible(&resolved, limits)?;
    }
    let memory = memory::find(&pinned, &resolved)?;
    let tree = Detached::clone_of(Path::new(&by_descriptor), bind.recursive)?;
    // Never shared with the host: an unmount below the clone would be one on the host.
    let propagation = if bind.follows_host { libc::MS_SLAVE } else { libc::MS_PRIVATE };
    tree.change(Attributes { set: 0, propagation, recursive: true })?;
    if bind.access != Access::ReadWrite {
        let recursive = bind.access == Access::RecursiveReadOnly;
        tree.change(Attributes { set: libc::MOUNT_ATTR_RDONLY, propagation: 0, recursive })?;
    }
    Ok(Found { kind: tree.file_type()?, identity, resolved, tree, memory })
}

fn identify(pinned: &OwnedFd, resolved: &Path, bind: &Bind) -> io::Result<Identity> {
    let stat = rustix::fs::fstat(pinned)?;
    let lies_below = |point: &Path| point != resolved && point.starts_with(resolved);
    let is_tree =
        bind.recursive && (bind.follows_host || table()?.iter().any(|point| lies_below(&point.path)));
    let tree = if is_tree {
        let mount = statx(pinned, "", AtFlags::EMPTY_PATH, StatxFlags::MNT_ID)?.stx_mnt_id;
        Some((mount, bind.access, bind.follows_host))
    } else {
        None
    };
    let flags = fstatvfs(pinned)?.f_flag;
    Ok(Identity { device: stat.st_dev, inode: stat.st_ino, flags, mirrored: false, tree })
}

fn is_forbidden(resolved: &Path, forbidden: &Forbidden) -> bool {
    forbidden.directories.iter().any(|directory| resolved.starts_with(directory))
        && !resolved.starts_with(&forbidden.except)
}

fn name(kind: FileType) -> &'static str {
    match kind {
        FileType::Socket => "socket",
        FileType::Fifo => "fifo",
        FileType::CharacterDevice | FileType::BlockDevice => "device node",
        _ => "file of this kind",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_sees_its_own_directory_and_no_others() {
        let forbidden = Forbidden {
            directories: vec!["/run/a3s".into(), "/var/lib/a3s".into()],
            except: "/run/a3s/pods/p1".into(),
        };
        let check = |path: &str| is_forbidden(Path::new(path), &forbidden);
        assert!(check("/run/a3s/pods/p2/share") && check("/run/a3s") && check("/var/lib/a3s/images"));
        assert!(check("/run/a3s/pods/p11"));
        assert!(!check("/run/a3s/pods/p1/hosts") && !check("/") && !check("/run/a3sother"));
    }
}
