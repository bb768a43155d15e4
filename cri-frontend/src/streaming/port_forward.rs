//! Port-forward: each connection of the client's is one to a port inside the pod.

use std::sync::Arc;

use tokio::{
    io::{AsyncRead, AsyncWrite},
    task::JoinSet,
};
use tracing::debug;

use super::{
    forward,
    output::{Input, Output},
    pairs::{Pair, Pairs},
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
/// The same where a channel is a character of ASCII from '0' on.
const MOST_PORTS_BASE64: usize = 40;

/// Whether there is a channel for each port, where channels are agreed upon: SPDY's clients name ports themselves.
pub fn fits(wanted: &request::PortForward, agreed: &Upgrade) -> Result<(), Refusal> {
    let count = wanted.ports.len();
    match most_ports(agreed) {
        Some(most) if !(1..=most).contains(&count) => Err(Refusal::Ports { count, most }),
        _ => Ok(()),
    }
}

/// None where clients name ports themselves.
fn most_ports(agreed: &Upgrade) -> Option<usize> {
    match agreed {
        Upgrade::Spdy(_) | Upgrade::WebSocket { protocol: Some(TUNNEL), .. } => None,
        Upgrade::WebSocket { protocol, .. } if is_base64(*protocol) => Some(MOST_PORTS_BASE64),
        Upgrade::WebSocket { .. } => Some(MOST_PORTS),
    }
}

fn is_base64(protocol: Option<&str>) -> bool {
    protocol.is_some_and(|name| name.contains("base64"))
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
            let codec = Codec { base64: is_base64(*protocol), close: false };
            over_channels(node, wanted, codec, connection).await;
        }
    }
}

async fn over_spdy(
    node: &Arc<Node>,
    sandbox: &Arc<Sandbox>,
    connection: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
) {
    let (mut session, transport) = spdy::open(connection, node.streaming.idle_timeout);
    let mut pairs = Pairs::default();
    let mut forwards = JoinSet::new();
    loop {
        let incoming = tokio::select! {
            incoming = session.accept() => match incoming {
                Some(incoming) => incoming,
                None => break,
            },
            Some(_) = forwards.join_next() => continue,
            () = pairs.overdue() => {
                pairs.give_up().await;
                continue;
            }
        };
        if let Some(Pair { id, port, data, error }) = pairs.place(incoming).await {
            debug!(sandbox = %sandbox.id, port, request = id, "forwarding");
            let ends = forward::Ends {
                input: Box::new(data.recv) as Input,
                output: Output::Spdy(data.send),
                error: Output::Spdy(error),
            };
            forwards.spawn(forward::run(sandbox.clone(), port, ends));
        }
    }
    // The client has gone: its connections go with it.
    drop(forwards);
    drop(pairs);
    drop(session);
    transport.finish().await;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_port_has_channels_that_can_be_written() {
        let agreed = |protocol| Upgrade::WebSocket { key: Vec::new(), protocol: Some(protocol) };
        assert_eq!(most_ports(&agreed(TUNNEL)), None);
        assert!(most_ports(&agreed("v4.channel.k8s.io")).unwrap() * 2 <= 256);
        let last = most_ports(&agreed("v4.base64.channel.k8s.io")).unwrap() * 2 - 1;
        assert!(last + usize::from(b'0') < 128, "{last} is no character of ASCII");
    }
}
