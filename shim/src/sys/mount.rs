//! The mount table, and mounts that are attached nowhere yet.

use std::{
    collections::BTreeSet,
    ffi::OsString,
    fs, io,
    os::{
        fd::{AsFd, AsRawFd, OwnedFd},
        unix::ffi::OsStringExt,
    },
    path::{Path, PathBuf},
};

use rustix::{
    fs::{CWD, Mode, OFlags},
    mount::{
        FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags,
        fsconfig_create, fsconfig_set_string, fsmount, fsopen, move_mount, open_tree, unmount,
    },
};

/// One line of `/proc/self/mountinfo`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountPoint {
    /// Its number, which statx(2) tells too.
    pub id: u64,
    /// Where it is attached.
    pub path: PathBuf,
    /// The directory of its file system that is seen there.
    pub root: PathBuf,
    /// Major and minor number of its file system.
    pub device: (u32, u32),
    /// The file system's type.
    pub kind: String,
    /// The file system's own options (cgroup v1 names its controllers there).
    pub options: String,
}

impl MountPoint {
    /// Whether the file system is the kernel's own: no device, no data that another process might wait for.
    pub fn is_of_the_kernel(&self) -> bool {
        const KERNEL: [&str; 9] =
            ["proc", "sysfs", "devtmpfs", "devpts", "cgroup", "cgroup2", "securityfs", "debugfs", "mqueue"];
        KERNEL.contains(&self.kind.as_str()) || (self.kind == "tmpfs" && self.path.starts_with("/sys"))
    }
}

/// The calling thread's mount table, in the order of mounting.
///
/// # Errors
/// `/proc` is not there.
pub fn table() -> io::Result<Vec<MountPoint>> {
    Ok(parse(&fs::read("/proc/thread-self/mountinfo")?))
}

fn parse(table: &[u8]) -> Vec<MountPoint> {
    table.split(|byte| *byte == b'\n').filter_map(parse_line).collect()
}

fn parse_line(line: &[u8]) -> Option<MountPoint> {
    let mut fields = line.split(|byte| *byte == b' ');
    let id = std::str::from_utf8(fields.next()?).ok()?.parse().ok()?;
    let device = device(fields.nth(1)?)?;
    let root = unescape(fields.next()?);
    let path = unescape(fields.next()?);
    let mut after = fields.skip_while(|field| *field != b"-").skip(1);
    let kind = String::from_utf8_lossy(after.next()?).into_owned();
    let options = String::from_utf8_lossy(after.nth(1)?).into_owned();
    Some(MountPoint { id, path, root, device, kind, options })
}

fn device(field: &[u8]) -> Option<(u32, u32)> {
    let (major, minor) = std::str::from_utf8(field).ok()?.split_once(':')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

/// The kernel writes space, tab, newline and backslash as three octal digits.
fn unescape(field: &[u8]) -> PathBuf {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let [first, tail @ ..] = rest {
        if let (b'\\', [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', left @ ..]) = (first, tail) {
            bytes.push((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'));
            rest = left;
        } else {
            bytes.push(*first);
            rest = tail;
        }
    }
    OsString::from_vec(bytes).into()
}

/// The mount points that the paths lie on, with all above them.
pub fn holding(points: &[MountPoint], paths: &[PathBuf]) -> BTreeSet<PathBuf> {
    points
        .iter()
        .filter(|point| paths.iter().any(|path| path.starts_with(&point.path)))
        .map(|point| point.path.clone())
        .collect()
}

/// Unmounts all that lies at or below a directory, the last mounted first.
///
/// # Errors
/// A mount is in use, and the flags do not detach it.
pub fn unmount_below(directory: &Path, flags: UnmountFlags) -> io::Result<()> {
    for point in table()?.into_iter().rev().filter(|point| point.path.starts_with(directory)) {
        unmount(&point.path, flags | UnmountFlags::NOFOLLOW).map_err(|error| {
            io::Error::new(io::Error::from(error).kind(), format!("{}: {error}", point.path.display()))
        })?;
    }
    Ok(())
}

/// A mount, or a tree of them, that is attached nowhere yet and vanishes with its last descriptor.
#[derive(Debug)]
pub struct Detached(OwnedFd);

/// What a mount forbids or how it propagates: `MOUNT_ATTR_*` and `MS_*` flags of mount_setattr(2).
#[derive(Debug, Clone, Copy, Default)]
pub struct Attributes {
    /// `MOUNT_ATTR_*` to set.
    pub set: u64,
    /// `MS_PRIVATE`, `MS_SLAVE`, or 0 for no change.
    pub propagation: u64,
    /// Whether submounts change as well.
    pub recursive: bool,
}

impl Detached {
    /// Clones what a path names; with its submounts if `recursive`.
    ///
    /// # Errors
    /// The path cannot be resolved, or cloning is not allowed.
    pub fn clone_of(path: &Path, recursive: bool) -> io::Result<Self> {
        let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        flags.set(OpenTreeFlags::AT_RECURSIVE, recursive);
        Ok(Self(open_tree(CWD, path, flags)?))
    }

    /// A file system in memory, of so many bytes at most.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn memory(bytes: usize) -> io::Result<Self> {
        let context = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
        fsconfig_set_string(context.as_fd(), "size", bytes.to_string())?;
        fsconfig_set_string(context.as_fd(), "mode", "0700")?;
        fsconfig_create(context.as_fd())?;
        let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID
            | MountAttrFlags::MOUNT_ATTR_NODEV
            | MountAttrFlags::MOUNT_ATTR_NOEXEC;
        Ok(Self(fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes)?))
    }

    /// Changes the mount before anybody can reach it.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn change(&self, attributes: Attributes) -> io::Result<()> {
        let attr = libc::mount_attr {
            attr_set: attributes.set,
            attr_clr: 0,
            propagation: attributes.propagation,
            userns_fd: 0,
        };
        let flags = libc::AT_EMPTY_PATH | if attributes.recursive { libc::AT_RECURSIVE } else { 0 };
        set_attributes(&self.0, flags, attr)
    }

    /// Attaches it in the calling thread's mount namespace.
    ///
    /// # Errors
    /// The target is not there, or of another kind (file or directory).
    pub fn attach(&self, target: &Path) -> io::Result<()> {
        Ok(move_mount(self.0.as_fd(), c"", CWD, target, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?)
    }

    /// What is mounted, by its type: directory, file, socket …
    ///
    /// # Errors
    /// The file system fails.
    pub fn file_type(&self) -> io::Result<rustix::fs::FileType> {
        Ok(rustix::fs::FileType::from_raw_mode(rustix::fs::fstat(&self.0)?.st_mode))
    }

    /// Device and inode of what was cloned.
    ///
    /// # Errors
    /// The file system fails.
    pub fn identity(&self) -> io::Result<(u64, u64)> {
        let stat = rustix::fs::fstat(&self.0)?;
        Ok((stat.st_dev, stat.st_ino))
    }
}

/// Lets a mount be written that was attached read-only, in the calling thread's mount namespace.
///
/// # Errors
/// Nothing is mounted there.
pub fn make_writable(path: &Path) -> io::Result<()> {
    let mount = rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC | OFlags::NOFOLLOW, Mode::empty())?;
    let attr =
        libc::mount_attr { attr_set: 0, attr_clr: libc::MOUNT_ATTR_RDONLY, propagation: 0, userns_fd: 0 };
    set_attributes(&mount, libc::AT_EMPTY_PATH, attr)
}

fn set_attributes(mount: &OwnedFd, flags: libc::c_int, attr: libc::mount_attr) -> io::Result<()> {
    // SAFETY: the descriptor is open, the path is a static C string, and `attr` outlives the call that reads exactly
    // its size.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            flags,
            &raw const attr,
            size_of::<libc::mount_attr>(),
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStrExt;

    use super::*;

    const TABLE: &[u8] = b"22 1 254:0 / / rw,relatime - ext4 /dev/vda rw\n\
        23 22 0:5 / /proc rw - proc proc rw\n\
        40 22 0:30 / /sys/fs/cgroup/cpu,cpuacct rw shared:9 - cgroup cgroup rw,cpu,cpuacct\n\
        50 22 7:0 / /mnt/my\\040volume rw shared:12 master:3 - ext4 /dev/loop0 rw\n\
        51 22 0:4 net:[4026532000] /run/netns/a3s-x rw - nsfs nsfs rw\n";

    #[test]
    fn the_mount_table_is_read_with_its_escapes() {
        let points = parse(TABLE);
        let paths: Vec<_> = points.iter().map(|point| point.path.to_str().unwrap()).collect();
        assert_eq!(paths, ["/", "/proc", "/sys/fs/cgroup/cpu,cpuacct", "/mnt/my volume", "/run/netns/a3s-x"]);
        assert_eq!(points[2].options, "rw,cpu,cpuacct");
        assert_eq!((points[3].device, points[4].root.to_str()), ((7, 0), Some("net:[4026532000]")));
        assert_eq!(points.iter().map(|point| point.id).collect::<Vec<_>>(), [22, 23, 40, 50, 51]);
    }

    #[test]
    fn only_mounts_that_hold_a_needed_path_are_kept() {
        let points = parse(TABLE);
        let kept = holding(&points, &["/run/a3s-box/pods/x".into(), "/mnt/my volume/data".into()]);
        assert_eq!(kept, [PathBuf::from("/"), "/mnt/my volume".into()].into());
        assert!(points[2].is_of_the_kernel() && !points[4].is_of_the_kernel());
    }

    #[test]
    fn a_path_may_not_be_text() {
        assert_eq!(unescape(b"/a\xff\\134").as_os_str().as_bytes(), b"/a\xff\\");
    }
}
