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
    sync::Arc,
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
    sync::Semaphore,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

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
/// Dials that a guest may leave unanswered.
const MOST_DIALS: usize = 256;

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
    Ok(Backend { process, vhost: vhost.into(), connector: Connector::new(vsock), ready })
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
pub struct Connector {
    socket: Arc<HeldSocket>,
    /// What is being dialled.
    dials: Arc<Semaphore>,
    /// Ends what is being dialled with the pod.
    gone: CancellationToken,
}

impl Connector {
    fn new(socket: HeldSocket) -> Self {
        let dials = Arc::new(Semaphore::new(MOST_DIALS));
        Self { socket: Arc::new(socket), dials, gone: CancellationToken::new() }
    }

    /// Connects to a port of the guest.
    ///
    /// Whoever leaves does not end the dial: the daemon (vhost-device-vsock 0.3, `send_pkt`) dies, and the pod with it,
    /// when the guest accepts a connection whose socket has been closed meanwhile.
    ///
    /// # Errors
    /// Nobody listens there, the channel is gone, or the guest does not answer in time.
    pub async fn connect(&self, port: u32) -> io::Result<UnixStream> {
        let attempt = async {
            let place = self.dials.clone().acquire_owned().await.map_err(io::Error::other)?;
            let dial = dial(self.socket.clone(), port);
            let dialling = tokio::spawn(self.gone.clone().run_until_cancelled_owned(async move {
                let _place = place;
                dial.await
            }));
            dialling.await?.unwrap_or_else(|| Err(io::ErrorKind::ConnectionAborted.into()))
        };
        timeout(CONNECT_BOUND, attempt).await?
    }
}

impl Drop for Connector {
    fn drop(&mut self) {
        self.gone.cancel();
    }
}

async fn dial(socket: Arc<HeldSocket>, port: u32) -> io::Result<UnixStream> {
    let mut stream = socket.connect().await?;
    stream.write_all(format!("CONNECT {port}\n").as_bytes()).await?;
    expect_ok(&mut stream).await?;
    Ok(stream)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_dial_is_not_closed_before_it_is_answered() {
        let dir = tempfile::tempdir().unwrap();
        let daemon = UnixListener::bind(dir.path().join("s")).unwrap();
        let connector = Connector::new(HeldSocket::open(&dir.path().join("s")).unwrap());
        let mut accepted = tokio::select! {
            _ = connector.connect(7) => panic!("nobody has answered"),
            accepted = daemon.accept() => accepted.unwrap().0,
        };
        let mut asked = [0; 10];
        accepted.read_exact(&mut asked).await.unwrap();
        assert_eq!(&asked, b"CONNECT 7\n");
        accepted.write_all(b"OK 7\n").await.unwrap();
        // Then it is let go.
        assert_eq!(accepted.read(&mut asked).await.unwrap(), 0);

        let answer = async {
            let mut accepted = daemon.accept().await.unwrap().0;
            accepted.write_all(b"OK 8\nfirst").await.unwrap();
            accepted
        };
        let (connected, _held) = tokio::join!(connector.connect(8), answer);
        let mut first = [0; 5];
        connected.unwrap().read_exact(&mut first).await.unwrap();
        assert_eq!(&first, b"first");
    }
}
