//! The endpoint's unix socket: root's alone, and never taken from a frontend that still listens.

use std::{
    fs, io,
    os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
};

use tokio::net::{UnixListener, UnixStream};
use tracing::warn;

/// Readable and writable for the owner and its group.
const MODE: u32 = 0o660;

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

/// Who may connect, besides root: the socket's group, where an administrator has changed it.
#[derive(Debug, Clone, Copy)]
pub struct Owner {
    gid: u32,
}

impl Owner {
    /// Whether the peer may connect.
    pub fn admits(self, stream: &UnixStream) -> bool {
        match stream.peer_cred() {
            Ok(peer) if peer.uid() == 0 || peer.gid() == self.gid => true,
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
}

/// Listens at a path, where a dead frontend may have left its socket.
pub async fn listen(path: &Path) -> Result<(UnixListener, Owner), SocketError> {
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
    // Between the two calls the socket has the process's default mode; `Owner` refuses others all the same.
    let listener = UnixListener::bind(path).map_err(failed("bind"))?;
    fs::set_permissions(path, fs::Permissions::from_mode(MODE)).map_err(failed("protect"))?;
    let gid = fs::metadata(path).map_err(failed("look at"))?.gid();
    Ok((listener, Owner { gid }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_dead_frontends_socket_is_replaced_and_a_live_ones_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sub/cri.sock");
        let (live, owner) = listen(&path).await.unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, MODE);
        assert!(matches!(listen(&path).await, Err(SocketError::InUse(_))));
        let client = UnixStream::connect(&path).await.unwrap();
        assert!(owner.admits(&client));
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
