//! The vsock channel: `vhost-device-vsock` under the pod's own user id, in a directory of its own.
//!
//! | file | who listens | for |
//! |---|---|---|
//! | `backend` | the daemon | the VMM's vhost-user connection |
//! | `vsock` | the daemon | the shim: `CONNECT <port>\n`, answered `OK <port>\n` |
//! | `vsock_<port>` | the shim | connections of the guest to the host's port |

use std::{
    fs::{self, DirBuilder},
    io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::{DirBuilderExt, chown},
    },
    path::Path,
    time::Duration,
};

use a3s_box_proto::ports::{GUEST_CID, READY};
use rustix::{
    fs::inotify::{self, CreateFlags, WatchFlags},
    io::Errno,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, unix::AsyncFd},
    net::{UnixListener, UnixStream},
    time::timeout,
};

use crate::sys::{
    process::{Program, Supervised},
    socket::{HeldSocket, SocketDirectory},
};

const BACKEND: &str = "backend";
const VSOCK: &str = "vsock";
/// What a guest may send on a connection before the daemon has handed it on: with less, a stream waits for a word of the
/// daemon's again and again. A power of two, or the daemon mixes bytes up when its counters wrap. What limits a packet is
/// the agent's [`MAX_PACKET`](a3s_box_proto::stream::MAX_PACKET).
const TX_BUFFER: u32 = 256 * 1024;
/// The daemon makes its sockets within milliseconds.
const START_BOUND: Duration = Duration::from_secs(10);
const CONNECT_BOUND: Duration = Duration::from_secs(5);

/// A running backend.
#[derive(Debug)]
pub struct Backend {
    /// The daemon.
    pub process: Supervised,
    /// The VMM's end of the vhost-user connection.
    pub vhost: OwnedFd,
    /// How the shim reaches the guest.
    pub connector: Connector,
    /// Where the guest reports that it is ready.
    pub ready: UnixListener,
}

/// Starts the backend in an empty directory, which becomes the pod user's.
///
/// # Errors
/// The directory, the program or one of its sockets cannot be made.
pub async fn start(program: &Path, directory: &Path, uid: u32) -> io::Result<Backend> {
    DirBuilder::new().mode(0o700).create(directory)?;
    let sockets = SocketDirectory::open(directory)?;
    let ready_name = format!("{VSOCK}_{READY}");
    let ready = sockets.listen(&ready_name)?;
    ready.set_nonblocking(true)?;
    chown(directory.join(&ready_name), Some(uid), Some(uid))?;
    chown(directory, Some(uid), Some(uid))?;
    let appearance = Appearance::watch(directory)?;
    let mut daemon = Program::new("vhost-device-vsock", program)?;
    daemon
        .args(["--guest-cid", &GUEST_CID.to_string(), "--socket", BACKEND, "--uds-path", VSOCK])
        .args(["--tx-buffer-size", &TX_BUFFER.to_string()])
        .directory(directory)
        .user(uid);
    let process = daemon.spawn()?;
    let (backend, vsock) = tokio::select! {
        held = timeout(START_BOUND, appearance.of(&sockets)) => held??,
        ended = process.ended() => return Err(io::Error::other(ended)),
    };
    let vhost = connect_when_listening(&backend).await?.into_std()?;
    vhost.set_nonblocking(false)?;
    let ready = UnixListener::from_std(ready)?;
    Ok(Backend { process, vhost: vhost.into(), connector: Connector(vsock), ready })
}

/// Removes the directory.
///
/// # Errors
/// The file system fails.
pub fn remove(directory: &Path) -> io::Result<()> {
    crate::sys::file::absent_is_fine(fs::remove_dir_all(directory))
}

/// A socket appears when it is bound, a moment before it listens.
async fn connect_when_listening(socket: &HeldSocket) -> io::Result<UnixStream> {
    let attempts = async {
        loop {
            match socket.connect().await {
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                other => return other,
            }
        }
    };
    timeout(START_BOUND, attempts).await?
}

/// Waits for the daemon's sockets, by inotify.
struct Appearance(AsyncFd<OwnedFd>);

impl Appearance {
    fn watch(directory: &Path) -> io::Result<Self> {
        let watch = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        inotify::add_watch(&watch, directory, WatchFlags::CREATE)?;
        // SAFETY: an `OwnedFd` is the same open descriptor as long as it lives.
        Ok(Self(unsafe { AsyncFd::register(watch) }.map_err(|error| error.into_parts().1)?))
    }

    async fn of(&self, sockets: &SocketDirectory) -> io::Result<(HeldSocket, HeldSocket)> {
        loop {
            match (sockets.hold(BACKEND), sockets.hold(VSOCK)) {
                (Ok(backend), Ok(vsock)) => return Ok((backend, vsock)),
                (Err(error), _) | (_, Err(error)) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(error);
                }
                _ => {}
            }
            let mut readable = self.0.readable().await?;
            let mut events = [0; 4096];
            match rustix::io::read(self.0.as_fd(), &mut events) {
                Ok(_) | Err(Errno::AGAIN) => readable.clear_ready(),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// Reaches ports of the guest. It holds the daemon's socket itself, not its name: the directory belongs to a user
/// that is not trusted and could put another socket of the host there.
#[derive(Debug)]
pub struct Connector(HeldSocket);

impl Connector {
    /// Connects to a port of the guest.
    ///
    /// # Errors
    /// Nobody listens there, or the channel is gone.
    pub async fn connect(&self, port: u32) -> io::Result<UnixStream> {
        let attempt = async {
            let mut stream = self.0.connect().await?;
            stream.write_all(format!("CONNECT {port}\n").as_bytes()).await?;
            expect_ok(&mut stream).await?;
            Ok(stream)
        };
        timeout(CONNECT_BOUND, attempt).await?
    }
}

/// Reads `OK <number>\n` and not a byte more: the guest's first bytes may follow at once.
async fn expect_ok(stream: &mut UnixStream) -> io::Result<()> {
    let mut line = Vec::with_capacity(16);
    while line.last() != Some(&b'\n') {
        if line.len() == 32 {
            return Err(io::Error::other("the vsock backend's answer has no end"));
        }
        line.push(stream.read_u8().await?);
    }
    if line.starts_with(b"OK ") { Ok(()) } else { Err(io::ErrorKind::ConnectionRefused.into()) }
}
