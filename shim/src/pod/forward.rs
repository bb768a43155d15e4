//! Forwards a connection to a TCP port inside the pod.

use std::sync::Arc;

use a3s_box_proto::{
    agent::{Stream, StreamOpen},
    stdio::Endpoint,
    stream::{BulkFile, StreamError, carry},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::Duration,
};
use tracing::debug;

use super::{Pod, attach::connect, sandbox::Sandbox};
use crate::{
    agent::connect::{StreamConnection, StreamOpenError},
    error::{Error, Result, Step},
};

/// Connections at once.
pub(super) const MOST_FORWARDS: usize = 1024;
/// For the guest to dial: it takes ten seconds for each family of addresses.
const DIAL_BOUND: Duration = Duration::from_secs(30);

impl Pod {
    /// Dials a port in the pod, connects to the socket, and carries bytes between the two until both have ended.
    ///
    /// # Errors
    /// Nobody listens at the port, or the socket is not there.
    pub async fn forward(&self, port: u32, socket: &Endpoint) -> Result<()> {
        let sandbox = self.ready("forward a port")?;
        let place = self.forwards.clone().try_acquire_owned().map_err(|_| {
            let state = format!("forwarding {MOST_FORWARDS} connections");
            Error::State { object: format!("pod {}", self.id), state, action: "forward one more" }
        })?;
        let connection = dial(&sandbox, port).await?;
        let Some(mut client) = connect(&self.host, Some(socket)).await? else { return Ok(()) };
        self.carry(async move {
            let _place = place;
            let (mut from_client, mut to_client) = client.split();
            let bulk = sandbox.share.bulk();
            let carrying = between(connection, &bulk, &mut from_client, &mut to_client);
            tokio::select! {
                carried = carrying => if let Err(error) = carried {
                    debug!(port, %error, "a forwarded connection broke off");
                },
                _ = sandbox.died() => {}
            }
        });
        Ok(())
    }
}

/// Carries bytes between the pod's connection and a client's until both directions have ended. The guest may put much
/// into the file.
pub(super) async fn between(
    connection: StreamConnection,
    bulk: &BulkFile,
    from_client: &mut (impl AsyncRead + Send + Unpin),
    to_client: &mut (impl AsyncWrite + Unpin),
) -> std::result::Result<(), StreamError> {
    let StreamConnection { mut reader, mut writer, .. } = connection;
    carry(&mut reader, &mut writer, from_client, to_client, Some(bulk)).await
}

/// Dials a port in the pod.
pub(super) async fn dial(sandbox: &Arc<Sandbox>, port: u32) -> Result<StreamConnection> {
    let open = StreamOpen { stream: Stream::TCP.into(), port, ..StreamOpen::default() };
    let object = || format!("port {port} of the pod");
    match sandbox.agent.open_stream(&open, DIAL_BOUND).await {
        Ok(connection) => Ok(connection),
        Err(StreamOpenError::Refused(why)) => {
            Err(Error::State { object: object(), state: format!("not open ({why})"), action: "forward it" })
        }
        Err(StreamOpenError::Channel(error)) => Err(error).step(|| format!("dialling {}", object())),
    }
}
