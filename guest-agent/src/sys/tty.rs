//! Pseudo terminals.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd},
};

fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// Unlocks a new pseudo terminal's other end.
pub fn unlock(master: &impl AsFd) -> io::Result<()> {
    let zero: libc::c_int = 0;
    // SAFETY: the request reads one int.
    check(unsafe { libc::ioctl(master.as_fd().as_raw_fd(), libc::TIOCSPTLCK, &raw const zero) }).map(|_| ())
}

/// Opens the other end without a path, which a container could have replaced.
pub fn peer(master: &impl AsFd) -> io::Result<OwnedFd> {
    let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC;
    // SAFETY: the request takes its flags by value.
    let fd = check(unsafe { libc::ioctl(master.as_fd().as_raw_fd(), libc::TIOCGPTPEER, flags) })?;
    // SAFETY: the kernel has just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Makes it the controlling terminal of the calling session.
pub fn take_control(terminal: &impl AsFd) -> io::Result<()> {
    // SAFETY: the request takes its argument by value.
    check(unsafe { libc::ioctl(terminal.as_fd().as_raw_fd(), libc::TIOCSCTTY, 0) }).map(|_| ())
}

/// Hangs a terminal up, as if its line had been cut: SIGHUP to its session, the end for whoever reads it.
pub fn hang_up(terminal: &impl AsFd) -> io::Result<()> {
    const TIOCVHANGUP: libc::Ioctl = 0x5437;
    // SAFETY: the request has no argument.
    check(unsafe { libc::ioctl(terminal.as_fd().as_raw_fd(), TIOCVHANGUP) }).map(|_| ())
}

/// Columns and rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    /// Columns.
    pub width: u16,
    /// Rows.
    pub height: u16,
}

/// Tells the terminal its size; the processes on it get SIGWINCH.
pub fn resize(master: &impl AsFd, size: Size) -> io::Result<()> {
    let size = libc::winsize { ws_row: size.height, ws_col: size.width, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: the request reads one winsize.
    check(unsafe { libc::ioctl(master.as_fd().as_raw_fd(), libc::TIOCSWINSZ, &raw const size) }).map(|_| ())
}
