//! Unix sockets in directories whose paths may be longer than `sun_path`.

use std::{
    fs::File,
    io,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::net::UnixListener,
    },
    path::{Path, PathBuf},
};

use rustix::fs::{FileType, Mode, OFlags, open, openat};
use tokio::net::UnixStream;

/// A directory in which sockets are reached by a short path.
#[derive(Debug)]
pub struct SocketDirectory(File);

impl SocketDirectory {
    /// Opens a directory.
    ///
    /// # Errors
    /// It is none.
    pub fn open(path: &Path) -> io::Result<Self> {
        Ok(Self(File::open(path)?))
    }

    /// Listens at a name in the directory.
    ///
    /// # Errors
    /// The name is taken.
    pub fn listen(&self, name: &str) -> io::Result<UnixListener> {
        UnixListener::bind(through_proc(&self.0).join(name))
    }

    /// Takes hold of a socket that is in the directory now: whatever takes its name later, this one is meant.
    ///
    /// # Errors
    /// It is not there, or no socket.
    pub fn hold(&self, name: &str) -> io::Result<HeldSocket> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        HeldSocket::checked(openat(&self.0, name, flags, Mode::empty())?)
    }
}

/// A socket file, by inode.
#[derive(Debug)]
pub struct HeldSocket(OwnedFd);

impl HeldSocket {
    /// Takes hold of a socket by its path.
    ///
    /// # Errors
    /// It is not there, or no socket.
    pub fn open(path: &Path) -> io::Result<Self> {
        Self::checked(open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?)
    }

    fn checked(file: OwnedFd) -> io::Result<Self> {
        match FileType::from_raw_mode(rustix::fs::fstat(&file)?.st_mode) {
            FileType::Socket => Ok(Self(file)),
            _ => Err(io::Error::other("not a socket")),
        }
    }

    /// Connects.
    ///
    /// # Errors
    /// Nobody listens.
    pub async fn connect(&self) -> io::Result<UnixStream> {
        UnixStream::connect(through_proc(&self.0)).await
    }
}

/// A path to what a descriptor of this process, or of one forked from it, holds.
pub fn through_proc(descriptor: &impl AsRawFd) -> PathBuf {
    format!("/proc/self/fd/{}", descriptor.as_raw_fd()).into()
}
