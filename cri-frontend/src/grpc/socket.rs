//! The endpoint's unix socket: root's alone, and never taken from a frontend that still listens.

use std::{
    fs, io,
    os::unix::fs::{FileTypeExt, PermissionsExt},
    path::{Path, PathBuf},
};

use rustix::fs::{Mode, chmod, fchmod};
use tokio::net::{UnixListener, UnixSocket, UnixStream};
use tracing::warn;

/// Readable and writable for the owner and its group.
const MODE: Mode = Mode::from_raw_mode(0o660);
/// Connections that wait to be accepted, as the standard library has it.
const BACKLOG: u32 = 128;

/// Why there is no endpoint.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// Someone serves at this path.
    #[error("somebody listens at {0} already")]
    InUse(PathBuf),
    /// Something else lies at this path.
    #[error("{0} is not a socket: it is left alone")]
    NotASocket(PathBuf),
    /// A file operation failed.
    #[error("cannot {action} {path}: {source}")]
    File {
        /// "bind", "remove", …
        action: &'static str,
        /// The socket.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
}

/// Who may connect: root, and whomever an administrator gives the socket to, by its group or an access list. Which of them
/// comes, the kernel has looked at; but not where the socket is open to all, by mistake.
#[derive(Debug)]
pub struct Gate {
    path: PathBuf,
}

impl Gate {
    /// Whether the peer may connect.
    pub fn admits(&self, stream: &UnixStream) -> bool {
        match stream.peer_cred() {
            Ok(peer) if peer.uid() == 0 || self.is_closed_to_others() => true,
            Ok(peer) => {
                warn!(uid = peer.uid(), gid = peer.gid(), "a connection to the CRI socket is refused");
                false
            }
            Err(error) => {
                warn!(%error, "a connection to the CRI socket without credentials is refused");
                false
            }
        }
    }

    fn is_closed_to_others(&self) -> bool {
        fs::symlink_metadata(&self.path).is_ok_and(|socket| socket.permissions().mode() & 0o002 == 0)
    }
}

/// Listens at a path, where a dead frontend may have left its socket.
pub async fn listen(path: &Path) -> Result<(UnixListener, Gate), SocketError> {
    let failed = |action| move |source| SocketError::File { action, path: path.to_owned(), source };
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir).map_err(failed("make the directory of"))?;
    }
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed("look at")(error)),
        Ok(file) if !file.file_type().is_socket() => return Err(SocketError::NotASocket(path.to_owned())),
        Ok(_) => match UnixStream::connect(path).await {
            Ok(_) => return Err(SocketError::InUse(path.to_owned())),
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                fs::remove_file(path).map_err(failed("remove"))?;
            }
            Err(error) => return Err(failed("ask who listens at")(error)),
        },
    }
    let socket = UnixSocket::new_stream().map_err(failed("make"))?;
    // The file takes its mode from here: there is no moment at which others could connect. Less where the umask takes of it.
    fchmod(&socket, MODE).map_err(io::Error::from).map_err(failed("protect"))?;
    socket.bind(path).map_err(failed("bind"))?;
    chmod(path, MODE).map_err(io::Error::from).map_err(failed("protect"))?;
    let listener = socket.listen(BACKLOG).map_err(failed("listen at"))?;
    Ok((listener, Gate { path: path.to_owned() }))
}

#[cfg(test)]
mod tests {
    use std::{os::unix, thread};

    use rustix::{
        process::{Gid, Uid},
        thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid},
    };

    use super::*;

    fn mode_of(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[tokio::test]
    async fn the_sockets_group_gets_in_and_all_others_never() {
        const GROUP: u32 = 12_345;
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let path = dir.path().join("cri.sock");
        let (listener, gate) = listen(&path).await.unwrap();
        unix::fs::chown(&path, None, Some(GROUP)).unwrap();
        // Somebody whose first group is another one.
        let connect = |groups: &'static [u32]| {
            let path = path.clone();
            let somebody = move || {
                let groups: Vec<_> = groups.iter().map(|group| Gid::from_raw(*group)).collect();
                set_thread_groups(&groups)?;
                let (gid, uid) = (Gid::from_raw(65_534), Uid::from_raw(65_534));
                set_thread_res_gid(gid, gid, gid)?;
                set_thread_res_uid(uid, uid, uid)?;
                unix::net::UnixStream::connect(path)
            };
            thread::spawn(somebody).join().unwrap()
        };
        let _client = connect(&[GROUP]).unwrap();
        assert!(gate.admits(&listener.accept().await.unwrap().0));
        assert_eq!(connect(&[]).unwrap_err().kind(), io::ErrorKind::PermissionDenied);

        fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
        let _client = connect(&[]).unwrap();
        assert!(!gate.admits(&listener.accept().await.unwrap().0));
    }

    #[tokio::test]
    async fn a_dead_frontends_socket_is_replaced_and_a_live_ones_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sub/cri.sock");
        let (live, gate) = listen(&path).await.unwrap();
        assert_eq!(mode_of(&path), 0o660);
        assert!(matches!(listen(&path).await, Err(SocketError::InUse(_))));
        let client = UnixStream::connect(&path).await.unwrap();
        assert!(gate.admits(&client));
        drop(live);
        listen(&path).await.unwrap();
    }

    #[tokio::test]
    async fn a_file_that_is_no_socket_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("precious");
        fs::write(&path, "x").unwrap();
        assert!(matches!(listen(&path).await, Err(SocketError::NotASocket(_))));
        assert_eq!(fs::read(&path).unwrap(), b"x");
    }
}
