//! Connecting to a pod's shim, new or found again after a restart.

use std::{io, path::Path, time::Duration};

use a3s_box_proto::ids::SandboxId;
use tokio::{net::UnixStream, time::timeout};
use ttrpc::r#async::{Client, transport::Socket};

use super::{SOCKET, Shim, ShimError, ShimProcess};

/// A shim that lives answers its first call within this.
const FIRST_ANSWER: Duration = Duration::from_secs(10);

/// What was found at a shim's socket.
#[derive(Debug)]
pub enum Connection {
    /// A shim that answers.
    Live(Shim),
    /// Nobody: the shim has ended.
    Gone,
}

/// Connects to the shim of the pod in `bundle`. An error means that it can't be told whether the shim lives.
pub async fn connect(sandbox: &SandboxId, bundle: &Path) -> Result<Connection, ShimError> {
    let path = bundle.join(SOCKET);
    let stream = match timeout(FIRST_ANSWER, UnixStream::connect(&path)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) if means_gone(&error) => return Ok(Connection::Gone),
        Ok(Err(source)) => return Err(ShimError::Connect { path, source }),
        Err(_) => return Err(ShimError::Silent { call: "connect", bound: FIRST_ANSWER }),
    };
    let client = Client::new(Socket::from(stream));
    let pid = Shim::pid(&client, sandbox, FIRST_ANSWER).await?;
    let process =
        ShimProcess::open(pid).map_err(|source| ShimError::Watch { sandbox: sandbox.clone(), source })?;
    Ok(Connection::Live(Shim::new(&client, sandbox.clone(), process)))
}

/// No file, or a file at which nobody listens.
fn means_gone(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_socket_without_a_listener_means_that_the_shim_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let id = "pod".parse().unwrap();
        assert!(matches!(connect(&id, dir.path()).await.unwrap(), Connection::Gone));
        drop(std::os::unix::net::UnixListener::bind(dir.path().join(SOCKET)).unwrap());
        assert!(matches!(connect(&id, dir.path()).await.unwrap(), Connection::Gone));
    }
}
