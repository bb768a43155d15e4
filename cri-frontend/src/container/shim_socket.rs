//! Where a pod's shim meets the frontend with one standard stream: a listening socket, connected to once.

use std::{
    io,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

use a3s_box_proto::stdio::Endpoint;
use bytes::BytesMut;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::{
    io::AsyncReadExt,
    net::{UnixListener, UnixStream},
};

use crate::{clock::unix_nanos, error::Error, sandbox::Sandbox};

/// The pod's directory of them.
pub const SOCKETS: &str = "x";

/// A socket of the pod's directory; its file is removed with the value.
#[derive(Debug)]
pub struct ShimSocket {
    listener: UnixListener,
    path: PathBuf,
}

impl ShimSocket {
    /// Listens under a name that nobody uses.
    ///
    /// # Errors
    /// The pod's directory cannot hold it.
    pub fn of_pod(sandbox: &Sandbox, name: &str) -> Result<Self, Error> {
        let path = sandbox.bundle.join(SOCKETS).join(name);
        Self::listen(path.clone()).map_err(Error::file("listen at", path))
    }

    /// Listens at a path that nobody uses.
    pub(super) fn listen(path: PathBuf) -> io::Result<Self> {
        let listener = UnixListener::bind(&path)?;
        Ok(Self { listener, path })
    }

    /// Where the shim is to connect.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The same, as the shim is told it.
    pub fn endpoint(&self) -> String {
        Endpoint::Socket(self.path.clone()).to_string()
    }

    /// Waits for the shim. Cancel-safe.
    ///
    /// # Errors
    /// The listener failed.
    pub async fn accept(&self) -> io::Result<UnixStream> {
        Ok(self.listener.accept().await?.0)
    }

    /// Waits for the shim to bring an output. Cancel-safe.
    ///
    /// # Errors
    /// The listener failed.
    pub async fn accept_output(&self) -> io::Result<Output> {
        Ok(Output(self.accept().await?))
    }
}

/// An output of a process. The shim ends a whole one by a half-close and holds the socket until we let it go; where it
/// closes it, or is gone itself, the output broke off.
#[derive(Debug)]
pub struct Output(UnixStream);

impl Output {
    /// Appends more of it; 0 bytes at its end. Cancel-safe.
    ///
    /// # Errors
    /// It broke off.
    pub async fn read(&mut self, buffer: &mut BytesMut) -> io::Result<usize> {
        match self.0.read_buf(buffer).await? {
            0 if self.is_closed()? => {
                Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the output broke off before its end"))
            }
            count => Ok(count),
        }
    }

    fn is_closed(&self) -> io::Result<bool> {
        let mut state = [PollFd::new(&self.0, PollFlags::empty())];
        poll(&mut state, Some(&Timespec::default()))?;
        Ok(state[0].revents().contains(PollFlags::HUP))
    }
}

impl Drop for ShimSocket {
    fn drop(&mut self) {
        // It is gone already where the pod was removed meanwhile.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// A name for execs and sockets, unused also by a frontend that was killed before this one.
pub fn unused_name() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let first = || u64::try_from(unix_nanos()).unwrap_or(1);
    let _ = NEXT.compare_exchange(0, first(), Ordering::Relaxed, Ordering::Relaxed);
    format!("{:x}", NEXT.fetch_add(1, Ordering::Relaxed))
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;

    use super::*;

    #[tokio::test]
    async fn an_output_that_is_closed_without_its_end_broke_off() {
        let dir = tempfile::tempdir().unwrap();
        for whole in [true, false] {
            let socket = ShimSocket::listen(dir.path().join("s")).unwrap();
            let mut shim = UnixStream::connect(socket.path()).await.unwrap();
            let mut output = socket.accept_output().await.unwrap();
            shim.write_all(b"word").await.unwrap();
            if whole {
                shim.shutdown().await.unwrap();
            } else {
                drop(shim);
            }
            let mut got = BytesMut::new();
            assert_eq!(output.read(&mut got).await.unwrap(), 4);
            assert_eq!(output.read(&mut got).await.is_ok(), whole);
            assert_eq!(got, "word");
        }
    }
}
