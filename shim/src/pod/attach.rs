//! Joins a client to a container's process.

use std::{path::PathBuf, sync::Arc};

use a3s_box_proto::stdio::Endpoint;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
    sync::OwnedSemaphorePermit,
};
use tracing::debug;

use super::{Pod, container::Container, process::State};
use crate::{
    error::{Error, Result, Step},
    io::{
        Stdio,
        hub::{Backlog, MOST_CLIENTS},
        socket::closed,
    },
    sys::{namespace::HostNamespace, socket},
};

/// One read of a client's input.
const CHUNK: usize = 16 * 1024;

impl Container {
    /// Connects to a client's sockets, and carries the process's live streams until it ends or the client leaves.
    ///
    /// # Errors
    /// It does not run, its input is not to be written to, or a socket is not there.
    pub async fn attach(self: &Arc<Self>, pod: &Pod, streams: &Stdio) -> Result<()> {
        if !matches!(self.process.state(), State::Running(_)) {
            return Err(self.process.wrong_state("attach to it"));
        }
        if streams.stdin.is_some() && self.hub.input().is_none() {
            let reason = "it was created without an input to attach to".to_owned();
            return Err(Error::invalid(format!("container {}", self.id), reason));
        }
        let place = self.hub.place().ok_or_else(|| Error::Full {
            object: format!("container {}", self.id),
            most: MOST_CLIENTS,
            what: "attached clients",
        })?;
        let stdin = connect(&pod.host, streams.stdin.as_ref()).await?;
        let stdout = connect(&pod.host, streams.stdout.as_ref()).await?;
        let stderr = connect(&pod.host, streams.stderr.as_ref()).await?;
        // Each ends with the process, or with its client.
        if let Some(socket) = stdout {
            pod.carry(show(socket, self.hub.stdout(), place.clone()));
        }
        if let Some(socket) = stderr {
            pod.carry(show(socket, self.hub.stderr(), place.clone()));
        }
        if let Some(socket) = stdin {
            let (container, ended) = (self.clone(), self.hub.ended().clone());
            pod.carry(async move {
                ended.run_until_cancelled(feed(&container, socket)).await;
                drop(place);
            });
        }
        debug!(container = %self.id, "a client has attached");
        Ok(())
    }
}

/// Connects to a socket of the frontend's.
pub(super) async fn connect(host: &HostNamespace, endpoint: Option<&Endpoint>) -> Result<Option<UnixStream>> {
    let path: PathBuf = match endpoint {
        None => return Ok(None),
        Some(Endpoint::Socket(path)) => path.clone(),
        Some(other) => return Err(Error::invalid(other.to_string(), "a socket is needed here: unix://")),
    };
    socket::connect(host, &path).await.step(|| format!("connecting to {}", path.display())).map(Some)
}

async fn show(mut socket: UnixStream, output: Arc<Backlog>, _place: Arc<OwnedSemaphorePermit>) {
    let (mut from_client, mut to_client) = socket.split();
    let showing = async {
        while let Some(bytes) = output.next().await {
            if to_client.write_all(&bytes).await.is_err() {
                return;
            }
        }
        // Without an end it shows that there was more.
        if !output.is_cut_off() && to_client.shutdown().await.is_ok() {
            std::future::pending::<()>().await;
        }
    };
    // Nothing comes this way but the client's going, also after the end.
    let mut nothing = [0];
    tokio::select! { () = showing => {} _ = from_client.read(&mut nothing) => {} }
    output.leave();
}

async fn feed(container: &Container, mut socket: UnixStream) {
    let Some(input) = container.hub.input() else { return };
    let mut buffer = vec![0; CHUNK];
    while let Ok(count @ 1..) = socket.read(&mut buffer).await {
        tokio::select! {
            written = input.write(&buffer[..count]) => if written.is_err() {
                // It has ended for all: the client hears it by the socket's end.
                return;
            },
            // The process does not read: nobody waits for that who has gone.
            () = closed(&socket) => break,
        }
    }
    input.leave().await;
}
