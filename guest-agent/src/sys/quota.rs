//! ext4's project quota: who a directory's bytes and inodes belong to, and how many they are.

use std::{
    io,
    os::fd::{AsFd, AsRawFd},
};

/// `struct fsxattr` of linux/fs.h.
#[repr(C)]
#[derive(Default)]
struct FsXattr {
    xflags: u32,
    extsize: u32,
    nextents: u32,
    projid: u32,
    cowextsize: u32,
    pad: [u8; 8],
}

const FS_IOC_FSGETXATTR: libc::c_ulong = 0x801c_581f;
const FS_IOC_FSSETXATTR: libc::c_ulong = 0x401c_5820;
const FS_XFLAG_PROJINHERIT: u32 = 0x200;
const Q_GETQUOTA: u32 = 0x80_0007;
const PRJQUOTA: u32 = 2;

/// Gives a directory, and whatever will be made in it, to a project.
pub fn set_project(directory: &impl AsFd, project: u32) -> io::Result<()> {
    let fd = directory.as_fd().as_raw_fd();
    let mut attributes = FsXattr::default();
    // SAFETY: the structure has the layout that the request's size field states.
    if unsafe { libc::ioctl(fd, FS_IOC_FSGETXATTR, &raw mut attributes) } < 0 {
        return Err(io::Error::last_os_error());
    }
    attributes.projid = project;
    attributes.xflags |= FS_XFLAG_PROJINHERIT;
    // SAFETY: as above.
    if unsafe { libc::ioctl(fd, FS_IOC_FSSETXATTR, &raw const attributes) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Bytes and inodes of a part of a file system.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// Bytes on the disk.
    pub bytes: u64,
    /// Files, directories and the like.
    pub inodes: u64,
    /// Bytes that the file system has in all.
    pub bytes_in_all: u64,
    /// Inodes that it has in all.
    pub inodes_in_all: u64,
    /// Those of them that nobody has.
    pub inodes_free: u64,
}

/// What a project holds on the file system of that directory.
pub fn project_usage(directory: &impl AsFd, project: u32) -> io::Result<Usage> {
    // SAFETY: all-zero is a valid dqblk.
    let mut quota: libc::dqblk = unsafe { std::mem::zeroed() };
    let command = (Q_GETQUOTA << 8) | PRJQUOTA;
    // SAFETY: the structure is what Q_GETQUOTA fills.
    let result = unsafe {
        libc::syscall(libc::SYS_quotactl_fd, directory.as_fd().as_raw_fd(), command, project, &raw mut quota)
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(Usage { bytes: quota.dqb_curspace, inodes: quota.dqb_curinodes, ..Usage::default() })
}
