//! Port-forward: each connection of the client's is one to a port inside the pod.

use std::{collections::HashMap, sync::Arc};

use a3s_box_spdy::{Incoming, ResetStatus, Stream};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    task::JoinSet,
    time::{Instant, sleep_until},
};
use tracing::debug;

use super::{
    STREAM_CREATION, forward,
    output::{Input, Output},
    request, spdy,
    tunnel::Tunnel,
    upgrade::{Offer, Refusal, Upgrade},
    websocket::{self, Codec},
};
use crate::{node::Node, sandbox::Sandbox};

/// SPDY in the binary messages of a WebSocket.
const TUNNEL: &str = "SPDY/3.1+portforward.k8s.io";

/// What is served, the best first.
pub const OFFER: Offer = Offer {
    spdy: &["portforward.k8s.io"],
    websocket: &[TUNNEL, "v4.channel.k8s.io", "v4.base64.channel.k8s.io"],
};

/// Ports that one WebSocket may forward: two channels each, of 256 with one to spare.
const MOST_PORTS: usize = 127;

/// Whether there is a channel for each port, where channels are agreed upon: SPDY's clients name ports themselves.
pub fn fits(wanted: &request::PortForward, agreed: &Upgrade) -> Result<(), Refusal> {
    let count = wanted.ports.len();
    match agreed {
        Upgrade::Spdy(_) | Upgrade::WebSocket { protocol: Some(TUNNEL), .. } => Ok(()),
        Upgrade::WebSocket { .. } if (1..=MOST_PORTS).contains(&count) => Ok(()),
        Upgrade::WebSocket { .. } => Err(Refusal::Ports { count, most: MOST_PORTS }),
    }
}

/// Serves a client until it leaves.
pub async fn serve(
    node: &Arc<Node>,
    wanted: request::PortForward,
    agreed: &Upgrade,
    connection: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
) {
    match agreed {
        Upgrade::Spdy(_) => over_spdy(node, &wanted.sandbox, connection).await,
        Upgrade::WebSocket { protocol: Some(TUNNEL), .. } => {
            over_spdy(node, &wanted.sandbox, Tunnel::open(connection).await).await;
        }
        Upgrade::WebSocket { protocol, .. } => {
            let codec = Codec { base64: protocol.is_some_and(|name| name.contains("base64")), close: false };
            over_channels(node, wanted, codec, connection).await;
        }
    }
}

/// A connection has two streams: its bytes, and what went wrong. They come in any order, and belong together by a
/// request's id.
#[derive(Debug, Default)]
struct Pair {
    data: Option<(Stream, u16)>,
    error: Option<Stream>,
    until: Option<Instant>,
}

async fn over_spdy(
    node: &Arc<Node>,
    sandbox: &Arc<Sandbox>,
    connection: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
) {
    let (mut session, transport) = spdy::open(connection, node.streaming.idle_timeout);
    let mut pairs: HashMap<String, Pair> = HashMap::new();
    let mut forwards = JoinSet::new();
    loop {
        let oldest = pairs.values().filter_map(|pair| pair.until).min();
        let incoming = tokio::select! {
            incoming = session.accept() => match incoming {
                Some(incoming) => incoming,
                None => break,
            },
            Some(_) = forwards.join_next() => continue,
            () = overdue(oldest) => {
                // A stream whose other one does not come is reset with its pair.
                pairs.retain(|_, pair| pair.until.is_some_and(|until| until > Instant::now()));
                continue;
            }
        };
        if let Some((id, pair)) = place(&mut pairs, incoming)
            && let (Some((data, port)), Some(error)) = (pair.data, pair.error)
        {
            debug!(sandbox = %sandbox.id, port, request = id, "forwarding");
            let ends = forward::Ends {
                input: Box::new(data.recv) as Input,
                output: Output::Spdy(data.send),
                error: Output::Spdy(error.send),
            };
            forwards.spawn(forward::run(sandbox.clone(), port, ends));
        }
    }
    // The client has gone: its connections go with it.
    drop(forwards);
    drop(session);
    transport.finish().await;
}

async fn overdue(until: Option<Instant>) {
    match until {
        Some(until) => sleep_until(until).await,
        None => std::future::pending().await,
    }
}

/// Puts a new stream to its pair; answers the pair when it is whole. What is no stream of ours is refused.
fn place(pairs: &mut HashMap<String, Pair>, incoming: Incoming) -> Option<(String, Pair)> {
    let port = incoming.headers().get("port").and_then(|port| port.parse::<u16>().ok());
    let kind = spdy::stream_type(&incoming).unwrap_or_default();
    let is_data = kind == "data";
    let Some(port) = port.filter(|port| *port > 0 && (is_data || kind == "error")) else {
        debug!(kind, "a client opened a stream without a port or of another kind");
        incoming.refuse(ResetStatus::RefusedStream);
        return None;
    };
    // Old clients name no request: their streams come in pairs, the error's first.
    let id = match incoming.headers().get("requestid") {
        Some(id) => id.to_owned(),
        None if is_data => incoming.id().get().saturating_sub(2).to_string(),
        None => incoming.id().get().to_string(),
    };
    let pair = pairs.entry(id.clone()).or_default();
    let taken = if is_data { pair.data.is_some() } else { pair.error.is_some() };
    if taken {
        incoming.refuse(ResetStatus::ProtocolError);
        return None;
    }
    pair.until.get_or_insert_with(|| Instant::now() + STREAM_CREATION);
    let stream = incoming.reply(&spdy::no_headers()).ok()?;
    if is_data {
        pair.data = Some((stream, port));
    } else {
        pair.error = Some(stream);
    }
    let is_whole = pair.data.is_some() && pair.error.is_some();
    if is_whole { pairs.remove_entry(&id) } else { None }
}

/// The ports come from the CRI call, two channels each, which begin with the port's number.
async fn over_channels(
    node: &Arc<Node>,
    wanted: request::PortForward,
    codec: Codec,
    connection: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
) {
    let ports = &wanted.ports;
    let read: Vec<bool> = ports.iter().flat_map(|_| [true, false]).collect();
    let (mut channels, transport) =
        websocket::open(connection, codec, &read, node.streaming.idle_timeout).await;
    let gone = transport.gone();
    let mut forwards = JoinSet::new();
    for (data, &port) in (0..).step_by(2).zip(ports) {
        let Some(input) = channels.inputs.get_mut(usize::from(data)).and_then(Option::take) else { continue };
        let (output, error) = (channels.sender(data), channels.sender(data + 1));
        for sender in [&output, &error] {
            // A client that has gone is noticed below.
            let _ = sender.send(&port.to_le_bytes()).await;
        }
        let ends = forward::Ends {
            input: Box::new(input) as Input,
            output: Output::WebSocket(output),
            error: Output::WebSocket(error),
        };
        forwards.spawn(forward::run(wanted.sandbox.clone(), port, ends));
    }
    drop(channels);
    tokio::select! {
        () = async { while forwards.join_next().await.is_some() {} } => {}
        () = gone.cancelled() => {}
    }
    drop(forwards);
    transport.finish().await;
}
