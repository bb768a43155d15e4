//! One forwarded connection: the client's streams, joined to a port inside the pod.

use std::{io, sync::Arc};

use bytes::BytesMut;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy},
    net::UnixStream,
};
use tracing::debug;

use super::output::{Input, Output};
use crate::{
    container::shim_socket::{ShimSocket, unused_name},
    error::Error,
    sandbox::Sandbox,
};

/// One read.
const CHUNK: usize = 64 * 1024;

/// The client's streams of one connection.
pub struct Ends {
    /// From the client.
    pub input: Input,
    /// To the client.
    pub output: Output,
    /// What went wrong.
    pub error: Output,
}

/// Connects and carries bytes until both sides have ended; an error is told on the error stream.
pub async fn run(sandbox: Arc<Sandbox>, port: u16, ends: Ends) {
    let Ends { input, output, mut error } = ends;
    match connect(&sandbox, port).await {
        Ok(stream) => {
            carry(stream, input, output).await;
        }
        Err(why) => {
            debug!(sandbox = %sandbox.id, port, error = %why, "not forwarded");
            let text = format!("error forwarding port {port} to pod {}, uid : {why}", sandbox.id);
            // The client may have gone.
            let _ = error.send(text.into()).await;
            output.reset();
        }
    }
    error.finish();
}

async fn connect(sandbox: &Sandbox, port: u16) -> Result<UnixStream, Error> {
    let shim = sandbox.shim()?;
    let socket = ShimSocket::of_pod(sandbox, &format!("{}p", unused_name()))?;
    let accepted = async { socket.accept().await.map_err(Error::file("listen at", socket.path())) };
    let connected = async { Ok(shim.port_forward(port, socket.endpoint()).await?) };
    Ok(tokio::try_join!(connected, accepted)?.1)
}

/// The end of one direction does not end the other, as with the connection itself.
async fn carry(mut stream: UnixStream, mut input: Input, mut output: Output) {
    let (mut from_pod, mut to_pod) = stream.split();
    let inward = async {
        let copied = copy(&mut input, &mut to_pod).await;
        to_pod.shutdown().await?;
        copied.map(drop)
    };
    let outward = async {
        let mut buffer = BytesMut::new();
        loop {
            buffer.reserve(CHUNK);
            if from_pod.read_buf(&mut buffer).await? == 0 {
                output.finish();
                return io::Result::Ok(());
            }
            output.send(buffer.split().freeze()).await?;
        }
    };
    if let Err(error) = tokio::try_join!(inward, outward) {
        debug!(%error, "a forwarded connection broke off");
    }
}
