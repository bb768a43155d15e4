//! Bytes between a client's streams and the sockets at which the shim brings a process's.

use std::time::Duration;

use bytes::BytesMut;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy},
    net::UnixStream,
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;

use super::output::{Input, Output};
use crate::{container::shim_socket::ShimSocket, error::Error};

/// One read.
const CHUNK: usize = 64 * 1024;
/// After a process's end, silence of this length is taken for the end of its output: a child that it left behind may
/// hold the pipe for ever.
const SILENCE: Duration = Duration::from_secs(2);
/// The same of all silences after the end together: the child may write now and then. What a slow client makes us wait
/// does not count.
const SILENCES: Duration = Duration::from_secs(10);

/// Carries an output to its end. `ended` says that the process has ended.
///
/// # Errors
/// It broke off.
pub async fn output(
    socket: Option<&ShimSocket>,
    client: Option<&mut Output>,
    ended: &CancellationToken,
) -> Result<(), Error> {
    let (Some(socket), Some(client)) = (socket, client) else { return Ok(()) };
    let broken = || Error::file("read a process's output at", socket.path());
    let mut stream = socket.accept_output().await.map_err(broken())?;
    let mut buffer = BytesMut::new();
    let mut patience = SILENCES;
    loop {
        buffer.reserve(CHUNK);
        let silent = async {
            ended.cancelled().await;
            sleep(SILENCE.min(patience)).await;
        };
        let waits_since = ended.is_cancelled().then(Instant::now);
        let read = tokio::select! {
            biased;
            read = stream.read(&mut buffer) => read,
            () = silent => return Ok(()),
        };
        if let Some(since) = waits_since {
            patience = patience.saturating_sub(since.elapsed());
        }
        if read.map_err(broken())? == 0 {
            return Ok(());
        }
        if client.send(buffer.split().freeze()).await.is_err() {
            // The client wants no more of it: the shim hears it by the socket's end.
            return Ok(());
        }
    }
}

/// Carries the input to its end, which the shim is told. Then waits for the shim to close the stream too: the process
/// takes no more.
pub async fn input(socket: Option<&ShimSocket>, client: Option<Input>) {
    let (Some(socket), Some(client)) = (socket, client) else { return std::future::pending().await };
    let Ok(stream) = socket.accept().await else { return };
    feed(stream, client).await;
}

async fn feed(mut stream: UnixStream, mut client: Input) {
    let (mut closed, mut to_shim) = stream.split();
    let feeding = async {
        // A process that has closed its input reads no more.
        let _ = copy(&mut client, &mut to_shim).await;
        let _ = to_shim.shutdown().await;
        std::future::pending::<()>().await;
    };
    let mut nothing = [0];
    tokio::select! {
        () = feeding => {}
        _ = closed.read(&mut nothing) => {}
    }
}
