//! Which streams of a port-forward over SPDY belong together: a connection has two, its bytes and what went wrong. They
//! come in any order, and belong together by a request's id.

use std::collections::HashMap;

use a3s_box_spdy::{Incoming, ResetStatus, SendHalf, Stream};
use tokio::time::{Instant, sleep_until};
use tracing::debug;

use super::{STREAM_CREATION, spdy};

/// A connection's streams.
#[derive(Debug)]
pub struct Pair {
    /// What the client calls it.
    pub id: String,
    /// The pod's port.
    pub port: u16,
    /// Its bytes, both ways.
    pub data: Stream,
    /// What went wrong, to the client.
    pub error: SendHalf,
}

/// The streams whose other one has not come.
#[derive(Debug, Default)]
pub struct Pairs(HashMap<String, Waiting>);

#[derive(Debug)]
struct Waiting {
    half: Half,
    until: Instant,
}

#[derive(Debug)]
enum Half {
    Data(Stream, u16),
    Error(SendHalf),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Data,
    Error,
}

impl Pairs {
    /// Puts a new stream to its pair; answers the pair when it is whole. What is no stream of ours is refused.
    pub async fn place(&mut self, incoming: Incoming) -> Option<Pair> {
        let Some((kind, port)) = read(&incoming) else {
            debug!(headers = ?incoming.headers(), "a client opened a stream without a port or of another kind");
            incoming.refuse(ResetStatus::RefusedStream);
            return None;
        };
        let id = request_id(&incoming, kind);
        match (self.0.remove(&id), kind) {
            (None, _) => {
                let stream = incoming.reply(&spdy::no_headers()).ok()?;
                let half = match kind {
                    Kind::Data => Half::Data(stream, port),
                    Kind::Error => Half::Error(stream.send),
                };
                self.0.insert(id, Waiting { half, until: Instant::now() + STREAM_CREATION });
                None
            }
            (Some(Waiting { half: Half::Data(data, port), .. }), Kind::Error) => {
                let error = incoming.reply(&spdy::no_headers()).ok()?.send;
                Some(Pair { id, port, data, error })
            }
            (Some(Waiting { half: Half::Error(error), .. }), Kind::Data) => {
                let data = incoming.reply(&spdy::no_headers()).ok()?;
                Some(Pair { id, port, data, error })
            }
            (Some(mut waiting), _) => {
                incoming.refuse(ResetStatus::ProtocolError);
                if let Half::Error(error) = &mut waiting.half {
                    let text =
                        format!("error processing stream for request {id}: error stream already assigned");
                    tell(error, text).await;
                }
                self.0.insert(id, waiting);
                None
            }
        }
    }

    /// Waits until one has waited for its other one too long. Cancel-safe.
    pub async fn overdue(&self) {
        match self.0.values().map(|waiting| waiting.until).min() {
            Some(until) => sleep_until(until).await,
            None => std::future::pending().await,
        }
    }

    /// Resets those; an error stream tells why first.
    pub async fn give_up(&mut self) {
        let now = Instant::now();
        for (id, waiting) in self.0.extract_if(|_, waiting| waiting.until <= now) {
            if let Half::Error(mut error) = waiting.half {
                tell(&mut error, format!("(request={id}) timed out waiting for streams")).await;
                // A client that has gone needs no end.
                let _ = error.finish();
            }
        }
    }
}

/// It waits only for a client who has been told much and reads nothing, and that one for nobody else.
async fn tell(error: &mut SendHalf, text: String) {
    if let Err(error) = error.send(text.into()).await {
        debug!(%error, "a client was not told that its streams do not fit together");
    }
}

fn read(incoming: &Incoming) -> Option<(Kind, u16)> {
    let port = incoming.headers().get("port")?.parse::<u16>().ok().filter(|port| *port > 0)?;
    match spdy::stream_type(incoming)? {
        "data" => Some((Kind::Data, port)),
        "error" => Some((Kind::Error, port)),
        _ => None,
    }
}

/// Old clients name no request: their streams come in pairs, the error's first.
fn request_id(incoming: &Incoming, kind: Kind) -> String {
    match (incoming.headers().get("requestid"), kind) {
        (Some(id), _) => id.to_owned(),
        (None, Kind::Data) => incoming.id().get().saturating_sub(2).to_string(),
        (None, Kind::Error) => incoming.id().get().to_string(),
    }
}

#[cfg(test)]
mod tests {
    use a3s_box_spdy::frame::Frame;

    use super::{super::spdy::testing::Client, *};

    #[tokio::test]
    async fn a_pair_is_whole_in_whatever_order() {
        let (mut client, mut session, _transport) = Client::pair();
        let mut pairs = Pairs::default();
        type Opened<'a> = (u32, &'a [(&'a str, &'a str)], Option<(&'a str, u16)>);
        let opened: [Opened<'_>; 8] = [
            (1, &[("streamtype", "error"), ("port", "80"), ("requestid", "a")], None),
            (3, &[("streamtype", "data"), ("port", "81"), ("requestid", "b")], None),
            (5, &[("streamtype", "error"), ("port", "81"), ("requestid", "b")], Some(("b", 81))),
            (7, &[("streamtype", "data"), ("port", "80"), ("requestid", "a")], Some(("a", 80))),
            // A client that names no request.
            (9, &[("streamtype", "error"), ("port", "82")], None),
            (11, &[("streamtype", "data"), ("port", "82")], Some(("9", 82))),
            (13, &[("streamtype", "data"), ("port", "0"), ("requestid", "c")], None),
            (15, &[("streamtype", "stdin"), ("port", "80"), ("requestid", "c")], None),
        ];
        for (id, headers, whole) in opened {
            client.open(id, headers).await;
            let pair = pairs.place(session.accept().await.unwrap()).await;
            assert_eq!(pair.as_ref().map(|pair| (pair.id.as_str(), pair.port)), whole, "stream {id}");
        }
        let mut refused = Vec::new();
        while refused.len() < 2 {
            if let Frame::RstStream { id, status: ResetStatus::RefusedStream } = client.next().await.unwrap()
            {
                refused.push(id.get());
            }
        }
        assert_eq!(refused, [13, 15]);
        assert!(pairs.0.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn half_a_pair_is_given_up_after_its_time() {
        let (mut client, mut session, _transport) = Client::pair();
        let mut pairs = Pairs::default();
        client.open(1, &[("streamtype", "error"), ("port", "80"), ("requestid", "a")]).await;
        client.open(3, &[("streamtype", "data"), ("port", "80"), ("requestid", "b")]).await;
        let start = Instant::now();
        for _ in 0..2 {
            assert!(pairs.place(session.accept().await.unwrap()).await.is_none());
        }
        while !pairs.0.is_empty() {
            pairs.overdue().await;
            pairs.give_up().await;
        }
        assert_eq!(start.elapsed(), STREAM_CREATION);
        let (mut told, mut ended, mut reset) = (Vec::new(), false, false);
        while !(ended && reset) {
            match client.next().await.unwrap() {
                Frame::Data { id, fin, bytes } if id.get() == 1 => {
                    told.extend_from_slice(&bytes);
                    ended |= fin;
                }
                Frame::RstStream { id, status: ResetStatus::Cancel } => reset |= id.get() == 3,
                _ => {}
            }
        }
        assert_eq!(String::from_utf8(told).unwrap(), "(request=a) timed out waiting for streams");
    }
}
