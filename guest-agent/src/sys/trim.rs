//! Giving blocks that a file system has freed back to its disk.

use std::{
    io,
    os::fd::{AsFd, AsRawFd},
};

/// `struct fstrim_range` of linux/fs.h.
#[repr(C)]
struct Range {
    start: u64,
    length: u64,
    least: u64,
}

const FITRIM: libc::c_ulong = 0xc018_5879;

/// Gives back all free pieces of the file system of that directory that have `least` bytes or more. ext4 leaves out groups of
/// blocks in which nothing was freed since the last time.
pub fn trim(directory: &impl AsFd, least: u64) -> io::Result<()> {
    let mut range = Range { start: 0, length: u64::MAX, least };
    // SAFETY: the structure has the layout that the request's size field states.
    match unsafe { libc::ioctl(directory.as_fd().as_raw_fd(), FITRIM, &raw mut range) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
