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
        mount::{Attributes, Detached, MountPoint, table},
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
    let forbidden = forbidden.clone();
    let found = match timeout(LOOKUP_BOUND, host.run(move || find(&bind, limits, &forbidden))).await {
        Ok(result) => result.map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => Error::invalid(&object, "it does not exist"),
            io::ErrorKind::Unsupported => Error::invalid(&object, error.to_string()),
            _ => Error::Host { step: format!("opening {object}"), source: error },
        })?,
        Err(late) => return Err(Error::Host { step: format!("opening {object}"), source: late.into() }),
    };
    if !matches!(found.kind, FileType::Directory | FileType::RegularFile) {
        let name = name(found.kind);
        let reason = format!("a {name} cannot be shared with a MicroVM: directories and regular files can");
        return Err(Error::invalid(object, reason));
    }
    Ok(found)
}

/// A file that was looked up.
struct Pinned {
    file: OwnedFd,
    /// Where it truly is.
    path: PathBuf,
    /// The mount by which it was reached.
    mount: u64,
}

impl Pinned {
    fn open(path: &Path) -> io::Result<Self> {
        let file = open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
        let path = fs::read_link(by_descriptor(&file))?;
        let mount = statx(&file, "", AtFlags::EMPTY_PATH, StatxFlags::MNT_ID)?.stx_mnt_id;
        Ok(Self { file, path, mount })
    }

    /// Its file system, and its path in that: the same by whatever mount it is reached.
    fn place(&self, points: &[MountPoint]) -> Option<((u32, u32), PathBuf)> {
        let mount = points.iter().find(|point| point.id == self.mount)?;
        Some((mount.device, mount.root.join(self.path.strip_prefix(&mount.path).ok()?)))
    }

    /// It lies in a directory, or is that.
    fn lies_in(&self, directory: &Self, points: &[MountPoint]) -> bool {
        if self.path.starts_with(&directory.path) {
            return true;
        }
        match (self.place(points), directory.place(points)) {
            (Some((device, path)), Some((other, above))) => device == other && path.starts_with(above),
            _ => false,
        }
    }
}

fn by_descriptor(file: &OwnedFd) -> String {
    format!("/proc/thread-self/fd/{}", file.as_raw_fd())
}

/// The path is looked up once: what is checked is what is attached.
fn find(bind: &Bind, limits: mirror::Limits, forbidden: &Forbidden) -> io::Result<Found> {
    let source = Pinned::open(&bind.source)?;
    let points = table()?;
    let refuse = |reason| {
        Err(io::Error::new(io::ErrorKind::Unsupported, format!("it is {reason} ({})", source.path.display())))
    };
    if KERNELS.contains(&fstatfs(&source.file)?.f_type) {
        return refuse("the host's kernel's, and the container runs on another");
    }
    if is_forbidden(&source, forbidden, &points)? {
        return refuse("the runtime's own");
    }
    let mut identity = identify(&source, &points, bind)?;
    if bind.access != Access::ReadWrite && plugin(&source.path) == Some(Plugin::Written) {
        identity.mirrored = mirror::is_possible(&source.path, limits)?;
    }
    let memory = memory::find(&source.file, &source.path)?;
    let tree = Detached::clone_of(by_descriptor(&source.file).as_ref(), bind.recursive)?;
    // Never shared with the host: an unmount below the clone would be one on the host.
    let propagation = if bind.follows_host { libc::MS_SLAVE } else { libc::MS_PRIVATE };
    tree.change(Attributes { set: 0, propagation, recursive: true })?;
    if bind.access != Access::ReadWrite {
        let recursive = bind.access == Access::RecursiveReadOnly;
        tree.change(Attributes { set: libc::MOUNT_ATTR_RDONLY, propagation: 0, recursive })?;
    }
    Ok(Found { kind: tree.file_type()?, identity, tree, memory })
}

fn identify(source: &Pinned, points: &[MountPoint], bind: &Bind) -> io::Result<Identity> {
    let stat = rustix::fs::fstat(&source.file)?;
    let lies_below = |point: &Path| point != source.path && point.starts_with(&source.path);
    let is_tree = bind.recursive && (bind.follows_host || points.iter().any(|point| lies_below(&point.path)));
    let tree = is_tree.then_some((source.mount, bind.access, bind.follows_host));
    let flags = fstatvfs(&source.file)?.f_flag;
    Ok(Identity { device: stat.st_dev, inode: stat.st_ino, flags, mirrored: false, tree })
}

/// Whether it is ours, by this path or by a mount elsewhere.
fn is_forbidden(source: &Pinned, forbidden: &Forbidden, points: &[MountPoint]) -> io::Result<bool> {
    let holds = |directory: &PathBuf| match Pinned::open(directory) {
        Ok(directory) => Ok(source.lies_in(&directory, points)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    };
    for directory in &forbidden.directories {
        if holds(directory)? {
            return Ok(!holds(&forbidden.except)?);
        }
    }
    Ok(false)
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
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        let at = |path: &str| root.join(path);
        for path in ["run/pods/p1/hosts", "run/pods/p2", "run/pods/p11", "runother"] {
            fs::create_dir_all(at(path)).unwrap();
        }
        std::os::unix::fs::symlink(at("run/pods/p2"), at("link")).unwrap();
        let forbidden = Forbidden {
            // One of them was never made.
            directories: vec![at("lib"), at("run")],
            except: at("run/pods/p1"),
        };
        let points = table().unwrap();
        let check =
            |path: &str| is_forbidden(&Pinned::open(&at(path)).unwrap(), &forbidden, &points).unwrap();
        assert!(check("run/pods/p2") && check("run/pods/p11") && check("run/pods") && check("run"));
        assert!(check("link"));
        assert!(!check("run/pods/p1") && !check("run/pods/p1/hosts") && !check("") && !check("runother"));
    }

    #[test]
    fn a_mount_elsewhere_is_of_the_same_place() {
        let point = |id, device, root: &str, path: &str| MountPoint {
            id,
            path: path.into(),
            root: root.into(),
            device,
            kind: "ext4".into(),
            options: String::new(),
        };
        let points = [
            point(1, (8, 1), "/", "/"),
            point(2, (8, 2), "/", "/data"),
            // Of /data/a3s/images and of one file, and one of the same name on another disk.
            point(3, (8, 2), "/a3s/images", "/mnt/images"),
            point(4, (8, 2), "/a3s/state", "/mnt/file"),
            point(5, (8, 1), "/a3s", "/mnt/other"),
        ];
        let file = || open("/", OFlags::PATH, Mode::empty()).unwrap();
        let pinned = |path: &str, mount| Pinned { file: file(), path: path.into(), mount };
        let ours = pinned("/data/a3s", 2);
        for (path, mount, is_ours) in [
            ("/data/a3s/images", 2, true),
            ("/mnt/images", 3, true),
            ("/mnt/images/layer", 3, true),
            ("/mnt/file", 4, true),
            ("/mnt/other", 5, false),
            ("/data/a3sother", 2, false),
            ("/data", 2, false),
            ("/", 1, false),
        ] {
            assert_eq!(pinned(path, mount).lies_in(&ours, &points), is_ours, "{path}");
        }
    }
}
