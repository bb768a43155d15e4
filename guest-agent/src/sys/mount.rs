//! The mount interface by file descriptors: no option string of one page, no path that may change underneath.

use std::{
    ffi::CString,
    io,
    os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd},
    path::Path,
};

const FSCONFIG_SET_FLAG: libc::c_uint = 0;
const FSCONFIG_SET_STRING: libc::c_uint = 1;
const FSCONFIG_CMD_CREATE: libc::c_uint = 6;
const FSOPEN_CLOEXEC: libc::c_uint = 1;
const FSMOUNT_CLOEXEC: libc::c_uint = 1;
const MOVE_MOUNT_F_EMPTY_PATH: libc::c_uint = 4;
const OPEN_TREE_CLONE: libc::c_uint = 1;
const OPEN_TREE_CLOEXEC: libc::c_uint = libc::O_CLOEXEC as libc::c_uint;

fn owned(result: libc::c_long) -> io::Result<OwnedFd> {
    check(result)?;
    // SAFETY: the kernel has just made this descriptor for us; nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(result as libc::c_int) })
}

fn check(result: libc::c_long) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn c_path(path: &Path) -> io::Result<CString> {
    Ok(CString::new(path.as_os_str().as_encoded_bytes())?)
}

/// A file system that is being configured (fsopen).
#[derive(Debug)]
pub struct FsContext(OwnedFd);

impl FsContext {
    /// Begins a file system of that type.
    pub fn open(kind: &str) -> io::Result<Self> {
        let kind = CString::new(kind)?;
        // SAFETY: the string lives through the call.
        owned(unsafe { libc::syscall(libc::SYS_fsopen, kind.as_ptr(), FSOPEN_CLOEXEC) }).map(Self)
    }

    fn configure(&self, command: libc::c_uint, key: Option<&str>, value: Option<&str>) -> io::Result<()> {
        let key = key.map(CString::new).transpose()?;
        let value = value.map(CString::new).transpose()?;
        let pointer = |text: &Option<CString>| text.as_ref().map_or(std::ptr::null(), |text| text.as_ptr());
        // SAFETY: both strings live through the call, or are null where the command takes none.
        check(unsafe {
            libc::syscall(libc::SYS_fsconfig, self.0.as_raw_fd(), command, pointer(&key), pointer(&value), 0)
        })
        .map_err(|error| self.explain(error))
    }

    /// Adds the kernel's own words, which it leaves in the context.
    fn explain(&self, error: io::Error) -> io::Error {
        let mut message = [0u8; 512];
        match nix::unistd::read(&self.0, &mut message) {
            Ok(length) if length > 0 => {
                let words = String::from_utf8_lossy(&message[..length]);
                io::Error::new(error.kind(), format!("{error} ({})", words.trim()))
            }
            _ => error,
        }
    }

    /// Sets an option with a value.
    pub fn set(&self, key: &str, value: &str) -> io::Result<()> {
        self.configure(FSCONFIG_SET_STRING, Some(key), Some(value))
    }

    /// Sets an option without a value.
    pub fn flag(&self, key: &str) -> io::Result<()> {
        self.configure(FSCONFIG_SET_FLAG, Some(key), None)
    }

    /// Makes the file system and a detached mount of it.
    pub fn mount(self) -> io::Result<DetachedMount> {
        self.configure(FSCONFIG_CMD_CREATE, None, None)?;
        // SAFETY: plain integers.
        owned(unsafe { libc::syscall(libc::SYS_fsmount, self.0.as_raw_fd(), FSMOUNT_CLOEXEC, 0) })
            .map(DetachedMount)
    }
}

/// A mount that is nowhere yet.
#[derive(Debug)]
pub struct DetachedMount(OwnedFd);

impl DetachedMount {
    /// A copy of the mounts at and below an open directory.
    pub fn copy_of(directory: &impl AsFd) -> io::Result<Self> {
        let flags = OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | (libc::AT_EMPTY_PATH | libc::AT_RECURSIVE) as u32;
        // SAFETY: the empty path is a static string.
        owned(unsafe {
            libc::syscall(libc::SYS_open_tree, directory.as_fd().as_raw_fd(), c"".as_ptr(), flags)
        })
        .map(Self)
    }

    /// Puts it where everybody sees it.
    pub fn attach(&self, target: &Path) -> io::Result<()> {
        let target = c_path(target)?;
        // SAFETY: both paths live through the call.
        check(unsafe {
            libc::syscall(
                libc::SYS_move_mount,
                self.0.as_raw_fd(),
                c"".as_ptr(),
                libc::AT_FDCWD,
                target.as_ptr(),
                MOVE_MOUNT_F_EMPTY_PATH,
            )
        })
    }
}
