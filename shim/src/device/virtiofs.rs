//! The virtio-fs daemon, in its own sandbox: it sees the pod's shared directory and nothing else of the host.

use std::{
    fs, io,
    os::{
        fd::OwnedFd,
        unix::net::{UnixListener, UnixStream},
    },
    path::Path,
};

use crate::sys::{
    process::{Program, Supervised},
    socket::{HeldSocket, SocketDirectory},
};

/// Requests of the guest that are served at once. Each that waits for a hung volume has one of them, and when all do, the pod's
/// other files wait too: more than programs usually have under way at once, since one that sleeps costs 30 KiB.
const THREADS: u32 = 32;

/// A running daemon.
#[derive(Debug)]
pub struct Daemon {
    /// The process; it needs root's capabilities over files, and drops the others.
    pub process: Supervised,
    /// The VMM's end of the vhost-user connection.
    pub vhost: OwnedFd,
}

/// Starts the daemon on a shared directory. Its socket is made, connected and unlinked here: the daemon gets it as an
/// open descriptor, so nobody waits for anything.
///
/// # Errors
/// The socket or the program cannot be made.
pub async fn start(program: &Path, directory: &Path, shared: &Path) -> io::Result<Daemon> {
    const NAME: &str = "virtiofs";
    let listener: UnixListener = SocketDirectory::open(directory)?.listen(NAME)?;
    let path = directory.join(NAME);
    let vhost: UnixStream = HeldSocket::open(&path)?.connect().await?.into_std()?;
    vhost.set_nonblocking(false)?;
    fs::remove_file(&path)?;
    let mut daemon = Program::new("virtiofsd", program)?;
    let listener = daemon.inherit(listener.into());
    daemon
        .arg("--shared-dir")
        .arg(shared)
        .args(["--fd", &listener.to_string()])
        .args(["--sandbox=namespace", "--cache=auto", "--xattr", "--announce-submounts", "--log-level=warn"])
        .args(["--thread-pool-size", &THREADS.to_string()])
        // The shim has raised its own limit as far as it may.
        .arg("--rlimit-nofile=0")
        .directory(Path::new("/"));
    Ok(Daemon { process: daemon.spawn()?, vhost: vhost.into() })
}
