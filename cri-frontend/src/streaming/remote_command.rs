//! The streams of an exec or attach, whatever carries them: input, output, errors, the terminal's size, and the error
//! stream that tells the end (`remotecommand` in Kubernetes' library).

use std::{sync::Arc, time::Duration};

use a3s_box_spdy::{Incoming, RecvHalf, ResetStatus, Session};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::timeout,
};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::{
    STREAM_CREATION,
    output::{Input, Output},
    resize::Sizes,
    spdy,
    status::{Format, Status},
    transport::Transport,
    upgrade::{Offer, Upgrade},
    websocket::{self, Codec},
};
use crate::{container::exec::Streams, node::Node};

/// What is served, the best first.
pub const OFFER: Offer = Offer {
    spdy: &["v4.channel.k8s.io", "v3.channel.k8s.io", "v2.channel.k8s.io", "channel.k8s.io"],
    websocket: &[
        "v5.channel.k8s.io",
        "v4.channel.k8s.io",
        "v4.base64.channel.k8s.io",
        "channel.k8s.io",
        "base64.channel.k8s.io",
    ],
};

/// The channels of a WebSocket, by number.
mod channel {
    pub const STDIN: u8 = 0;
    pub const STDOUT: u8 = 1;
    pub const STDERR: u8 = 2;
    pub const ERROR: u8 = 3;
    pub const RESIZE: u8 = 4;
}

/// A client with its streams.
pub struct Client {
    /// What goes to the process.
    pub stdin: Option<Input>,
    /// Where its output goes.
    pub stdout: Option<Output>,
    /// Where its errors go.
    pub stderr: Option<Output>,
    /// The sizes of its terminal.
    pub sizes: Option<Sizes<Input>>,
    error: Output,
    /// The backward directions of input streams. Nothing goes there, but Kubernetes' clients take their end for the
    /// process's wish to read no more.
    backward: Vec<Output>,
    format: Format,
    transport: Transport,
}

impl Client {
    /// Cancelled when the client has gone.
    pub fn gone(&self) -> CancellationToken {
        self.transport.gone()
    }

    /// Tells the end, and closes the connection when all is written.
    pub async fn finish(self, status: Status) {
        let Self { stdin, stdout, stderr, sizes, mut error, backward, format, transport } = self;
        if let Some(text) = status.encode(format) {
            // The client may have gone.
            let _ = transport.patiently(error.send(text.into())).await;
        }
        for output in [stdout, stderr, Some(error)].into_iter().flatten().chain(backward) {
            output.finish();
        }
        drop((stdin, sizes));
        transport.finish().await;
    }
}

/// Takes over a connection after its handshake; waits for the client's streams. None where they do not come.
pub async fn open(
    node: &Arc<Node>,
    streams: Streams,
    agreed: &Upgrade,
    connection: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
) -> Option<Client> {
    let idle = node.streaming.idle_timeout;
    match agreed {
        Upgrade::WebSocket { protocol, .. } => {
            Some(over_websocket(connection, streams, protocol.unwrap_or_default(), idle).await)
        }
        Upgrade::Spdy(protocol) => {
            let (session, transport) = spdy::open(connection, idle);
            over_spdy(session, transport, streams, protocol).await
        }
    }
}

async fn over_websocket(
    connection: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    streams: Streams,
    protocol: &str,
    idle: Duration,
) -> Client {
    let codec = Codec { base64: protocol.contains("base64"), close: protocol.starts_with("v5.") };
    let read = [streams.stdin, false, false, false, streams.tty];
    let (mut channels, transport) = websocket::open(connection, codec, &read, idle).await;
    let mut input = |number: u8| -> Option<Input> {
        channels.inputs.get_mut(usize::from(number))?.take().map(|pipe| Box::new(pipe) as Input)
    };
    let (stdin, sizes) = (input(channel::STDIN), input(channel::RESIZE).map(Sizes::new));
    let output = |wanted: bool, number| wanted.then(|| Output::WebSocket(channels.sender(number)));
    let stdout = output(streams.stdout, channel::STDOUT);
    let stderr = output(streams.stderr, channel::STDERR);
    let error = Output::WebSocket(channels.sender(channel::ERROR));
    // An empty message tells the client that the connection stands, as Kubernetes' library does it.
    let first = match (streams.stdout, streams.stderr) {
        (true, _) => channel::STDOUT,
        (false, true) => channel::STDERR,
        (false, false) => channel::ERROR,
    };
    // A client that has gone is noticed later.
    let _ = channels.sender(first).send(&[]).await;
    let has_status = protocol.starts_with("v4.") || protocol.starts_with("v5.");
    let format = if has_status { Format::Json } else { Format::Text };
    Client { stdin, stdout, stderr, sizes, error, backward: Vec::new(), format, transport }
}

async fn over_spdy(
    session: Session,
    transport: Transport,
    streams: Streams,
    protocol: &str,
) -> Option<Client> {
    let opened = timeout(STREAM_CREATION, streams_of(session, transport, streams, protocol)).await;
    if opened.is_err() {
        debug!("a client did not open its streams in time");
    }
    opened.ok().flatten()
}

/// Streams are told apart by their headers, in whatever order they come.
async fn streams_of(
    mut session: Session,
    mut transport: Transport,
    streams: Streams,
    protocol: &str,
) -> Option<Client> {
    let resizes = streams.tty && matches!(protocol, "v4.channel.k8s.io" | "v3.channel.k8s.io");
    let mut wanted: Vec<(&str, bool)> = vec![
        ("error", true),
        ("stdin", streams.stdin),
        ("stdout", streams.stdout),
        ("stderr", streams.stderr),
        ("resize", resizes),
    ];
    wanted.retain(|(_, wanted)| *wanted);
    let (mut inputs, mut outputs, mut backward) = (Vec::new(), Vec::new(), Vec::new());
    while !wanted.is_empty() {
        let incoming: Incoming = session.accept().await?;
        let kind = spdy::stream_type(&incoming).unwrap_or_default();
        let Some(place) = wanted.iter().position(|(name, _)| *name == kind) else {
            debug!(kind, "a client opened a stream that is not wanted");
            incoming.refuse(ResetStatus::RefusedStream);
            continue;
        };
        let (name, _) = wanted.swap_remove(place);
        let stream = incoming.reply(&spdy::no_headers()).ok()?;
        if matches!(name, "stdin" | "resize") {
            backward.push(Output::Spdy(stream.send));
            inputs.push((name, Box::new(stream.recv) as Input));
        } else {
            if name == "error" {
                transport.ends_with(reset_of(stream.recv));
            }
            outputs.push((name, Output::Spdy(stream.send)));
        }
    }
    let mut input = |name| take(&mut inputs, name);
    let (stdin, sizes) = (input("stdin"), input("resize").map(Sizes::new));
    let mut output = |name| take(&mut outputs, name);
    Some(Client {
        stdin,
        stdout: output("stdout"),
        stderr: output("stderr"),
        sizes,
        error: output("error")?,
        backward,
        format: if protocol == "v4.channel.k8s.io" { Format::Json } else { Format::Text },
        transport,
    })
}

/// Waits until the client resets a stream. Go's library does that with all streams when it goes, and may leave the
/// connection below open.
async fn reset_of(mut stream: RecvHalf) {
    loop {
        match stream.recv().await {
            Ok(Some(_)) => {}
            Ok(None) => return std::future::pending().await,
            Err(_) => return,
        }
    }
}

fn take<T>(streams: &mut Vec<(&str, T)>, name: &str) -> Option<T> {
    let place = streams.iter().position(|(known, _)| *known == name)?;
    Some(streams.swap_remove(place).1)
}

#[cfg(test)]
mod tests {
    use a3s_box_spdy::frame::Frame;
    use tokio::time::Instant;

    use super::*;

    const STREAMS: Streams = Streams { stdin: true, stdout: true, stderr: false, tty: false };

    #[tokio::test(start_paused = true)]
    async fn streams_come_in_whatever_order() {
        let (mut client, session, transport) = spdy::testing::Client::pair();
        for (id, kind) in [(1, "stdout"), (3, "stderr"), (5, "stdin"), (7, "stdin"), (9, "error")] {
            client.open(id, &[("streamtype", kind)]).await;
        }
        let served = over_spdy(session, transport, STREAMS, "v4.channel.k8s.io").await.unwrap();
        assert!(served.stdin.is_some() && served.stdout.is_some() && served.stderr.is_none());
        let mut refused = Vec::new();
        while refused.len() < 2 {
            if let Frame::RstStream { id, status: ResetStatus::RefusedStream } = client.next().await.unwrap()
            {
                refused.push(id.get());
            }
        }
        assert_eq!(refused, [3, 7], "one that was not asked for, and the second of a kind");
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_whose_streams_do_not_come_is_left_after_their_time() {
        let (mut client, session, transport) = spdy::testing::Client::pair();
        client.open(1, &[("streamtype", "error")]).await;
        client.open(3, &[("streamtype", "stdout")]).await;
        let start = Instant::now();
        assert!(over_spdy(session, transport, STREAMS, "v4.channel.k8s.io").await.is_none());
        assert_eq!(start.elapsed(), STREAM_CREATION);
        while client.next().await.is_some() {}
    }
}
