//! Unix sockets in directories whose paths may be longer than `sun_path`.

use std::{
    fs::File,
    io,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::net::{UnixListener, UnixStream as StdUnixStream},
    },
    path::{Path, PathBuf},
    time::Duration,
};

use rustix::fs::{FileType, Mode, OFlags, open, openat};
use tokio::{net::UnixStream, time::timeout};

use super::namespace::HostNamespace;

/// For a peer on this node to accept a connection.
const CONNECT_BOUND: Duration = Duration::from_secs(5);

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

/// Connects to a socket by its path on the node.
///
/// # Errors
/// Nobody listens there, or who does is too busy for us.
pub async fn connect(host: &HostNamespace, path: &Path) -> io::Result<UnixStream> {
    let path = path.to_owned();
    // connect(2) waits as long as the queue of those who wait is full.
    let connected = host.run(move || {
        let socket = StdUnixStream::connect(path)?;
        socket.set_nonblocking(true)?;
        Ok(socket)
    });
    UnixStream::from_std(timeout(CONNECT_BOUND, connected).await??)
}

/// A path to what a descriptor of this process, or of one forked from it, holds.
pub fn through_proc(descriptor: &impl AsRawFd) -> PathBuf {
    format!("/proc/self/fd/{}", descriptor.as_raw_fd()).into()
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener as StdUnixListener;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_accepts_nobody_is_given_up() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("s");
        let listener = StdUnixListener::bind(&path).unwrap();
        rustix::net::listen(&listener, 0).unwrap();
        let _first = StdUnixStream::connect(&path).unwrap();
        let host = HostNamespace::capture().unwrap();
        let error = connect(&host, &path).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }
}
