//! Where a pod's shim meets the frontend with one standard stream: a listening socket, connected to once.

use std::{
    io,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

use a3s_box_proto::stdio::Endpoint;
use tokio::net::{UnixListener, UnixStream};

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
