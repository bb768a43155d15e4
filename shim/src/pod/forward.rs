//! Forwards a connection to a TCP port inside the pod.

use std::{
    io,
    os::{fd::AsFd, unix::net::UnixStream as StdUnixStream},
    sync::Arc,
};

use a3s_box_proto::{
    agent::{Stream, StreamOpen},
    stdio::Endpoint,
    stream::{BulkFile, StreamError, carry},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::UnixStream,
    time::{Duration, sleep},
};
use tracing::debug;

use super::{Pod, attach::connect, sandbox::Sandbox};
use crate::{
    agent::connect::{StreamConnection, StreamOpenError},
    error::{Error, Result, Step},
    io::socket::closed,
};

/// Connections at once.
pub(super) const MOST_FORWARDS: usize = 1024;
/// A client that goes ends its side only, as far as the pod can see. What it said last has this time, and so has a server
/// that does not mind the end.
const LAST_WORDS: Duration = Duration::from_secs(30);
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
            let object = format!("pod {}", self.id);
            Error::Full { object, most: MOST_FORWARDS, what: "forwarded connections" }
        })?;
        let connection = dial(&sandbox, port).await?;
        let Some(mut client) = connect(&self.host, Some(socket)).await? else { return Ok(()) };
        let gone = twin(&client).step(|| format!("watching the client of port {port}"))?;
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
                () = long_gone(&gone) => debug!(port, "a forwarded connection ends after its client"),
            }
        });
        Ok(())
    }
}

/// The same socket, to be watched beside its use.
fn twin(socket: &UnixStream) -> io::Result<UnixStream> {
    UnixStream::from_std(StdUnixStream::from(socket.as_fd().try_clone_to_owned()?))
}

async fn long_gone(client: &UnixStream) {
    closed(client).await;
    sleep(LAST_WORDS).await;
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

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        time::{Instant, timeout},
    };

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_client_is_gone_when_it_has_closed_both_ways_and_its_last_words_have_time() {
        let (mut near, mut far) = UnixStream::pair().unwrap();
        let gone = twin(&near).unwrap();
        far.write_all(b"last words").await.unwrap();
        far.shutdown().await.unwrap();
        assert!(timeout(2 * LAST_WORDS, long_gone(&gone)).await.is_err(), "it may still read");
        // That it is watched does not keep its bytes back, either way.
        near.write_all(&vec![7; 100_000]).await.unwrap();
        let mut answer = vec![0; 100_000];
        far.read_exact(&mut answer).await.unwrap();
        drop(far);
        let start = Instant::now();
        long_gone(&gone).await;
        assert_eq!(start.elapsed(), LAST_WORDS);
        let mut words = String::new();
        near.read_to_string(&mut words).await.unwrap();
        assert_eq!(words, "last words");
    }
}
