//! What a request asks to be upgraded to, before its token is looked at: a refused upgrade burns no token, so that a
//! client may try another way at the same URL.

use hyper::{
    HeaderMap, Method, StatusCode,
    header::{
        CONNECTION, HeaderName, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE,
    },
};

/// How SPDY clients name the protocol above it.
pub const STREAM_PROTOCOL: HeaderName = HeaderName::from_static("x-stream-protocol-version");
/// The one version of WebSockets.
pub const WEBSOCKET_VERSION: &str = "13";
/// 16 bytes in base64.
const KEY_LENGTH: usize = 24;
/// What the `Upgrade` header says of SPDY.
pub const SPDY: &str = "SPDY/3.1";

/// What carries the streams, agreed upon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Upgrade {
    /// SPDY/3.1, with the protocol above it.
    Spdy(&'static str),
    /// A WebSocket.
    WebSocket {
        /// `Sec-WebSocket-Key`.
        key: Vec<u8>,
        /// The subprotocol; none where the client named none.
        protocol: Option<&'static str>,
    },
}

/// The protocols that are served for a kind of request.
#[derive(Debug, Clone, Copy)]
pub struct Offer {
    /// Above SPDY.
    pub spdy: &'static [&'static str],
    /// As subprotocols of a WebSocket.
    pub websocket: &'static [&'static str],
}

/// Why not.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Refusal {
    /// It asks for no upgrade, or for one that is unknown.
    #[error("this URL is for an upgrade to SPDY/3.1 or to a WebSocket, and the request asks for {0:?}")]
    NoUpgrade(String),
    /// The handshake is not one of its protocol's.
    #[error("unable to upgrade: the request lacks {0}")]
    Handshake(&'static str),
    /// A WebSocket begins with GET.
    #[error("unable to upgrade: a WebSocket's handshake is a GET")]
    Method,
    /// No common protocol.
    #[error("none of the protocols {asked:?} is served here: {served:?} are")]
    Protocol {
        /// What the client named.
        asked: Vec<String>,
        /// What there is.
        served: &'static [&'static str],
    },
    /// Channels that the call's ports cannot be given.
    #[error("port-forward by channels takes 1 to {most} ports from the call, which has {count}")]
    Ports {
        /// How many the call has.
        count: usize,
        /// How many there are channels for.
        most: usize,
    },
}

impl Refusal {
    /// The HTTP status of the answer.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::NoUpgrade(_) | Self::Handshake(_) | Self::Ports { .. } => StatusCode::BAD_REQUEST,
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
            Self::Protocol { .. } => StatusCode::FORBIDDEN,
        }
    }
}

/// Reads what the client asks for, and chooses.
pub fn agree(method: &Method, headers: &HeaderMap, offer: Offer) -> Result<Upgrade, Refusal> {
    let upgrade = words(headers, &UPGRADE).join(", ");
    let upgrading = words(headers, &CONNECTION).iter().any(|word| word.eq_ignore_ascii_case("upgrade"));
    if upgrading && upgrade.eq_ignore_ascii_case(SPDY) {
        let asked = words(headers, &STREAM_PROTOCOL);
        let protocol = first(&asked, offer.spdy)?;
        return protocol.map(Upgrade::Spdy).ok_or(Refusal::Handshake("an X-Stream-Protocol-Version"));
    }
    if upgrading && upgrade.eq_ignore_ascii_case("websocket") {
        if method != Method::GET {
            return Err(Refusal::Method);
        }
        if words(headers, &SEC_WEBSOCKET_VERSION) != [WEBSOCKET_VERSION] {
            return Err(Refusal::Handshake("Sec-WebSocket-Version: 13"));
        }
        let key = headers.get(SEC_WEBSOCKET_KEY).filter(|key| key.len() == KEY_LENGTH);
        let key = key.ok_or(Refusal::Handshake("a Sec-WebSocket-Key of 16 bytes in base64"))?;
        let asked = words(headers, &SEC_WEBSOCKET_PROTOCOL);
        return Ok(Upgrade::WebSocket {
            key: key.as_bytes().to_owned(),
            protocol: first(&asked, offer.websocket)?,
        });
    }
    Err(Refusal::NoUpgrade(upgrade))
}

/// The client's favourite among those that are served; none where it names none.
fn first(asked: &[&str], served: &'static [&'static str]) -> Result<Option<&'static str>, Refusal> {
    if asked.is_empty() {
        return Ok(None);
    }
    let common = asked.iter().find_map(|one| served.iter().find(|known| *known == one)).copied();
    let refusal = || Refusal::Protocol { asked: asked.iter().map(|&one| one.to_owned()).collect(), served };
    common.map(Some).ok_or_else(refusal)
}

/// The words of a header that is a comma-separated list, over however many lines.
fn words<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Vec<&'a str> {
    let lines = headers.get_all(name).iter().filter_map(|line| line.to_str().ok());
    lines.flat_map(|line| line.split(',')).map(str::trim).filter(|word| !word.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const OFFER: Offer = Offer { spdy: &["v4", "v3"], websocket: &["v5", "v4"] };

    fn headers(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(HeaderName::from_static(name), value.parse().unwrap());
        }
        headers
    }

    fn get(fields: &[(&'static str, &'static str)]) -> Result<Upgrade, Refusal> {
        agree(&Method::GET, &headers(fields), OFFER)
    }

    #[test]
    fn spdy_clients_get_their_first_that_is_served() {
        let spdy = [("connection", "keep-alive, Upgrade"), ("upgrade", "spdy/3.1")];
        let asking = |protocols: &[&'static str]| {
            let lines = protocols.iter().map(|line| ("x-stream-protocol-version", *line));
            get(&spdy.into_iter().chain(lines).collect::<Vec<_>>())
        };
        assert_eq!(asking(&["v5", "v3, v4"]), Ok(Upgrade::Spdy("v3")));
        assert_eq!(asking(&["v9"]).unwrap_err().status(), StatusCode::FORBIDDEN);
        assert_eq!(asking(&[]).unwrap_err().status(), StatusCode::BAD_REQUEST);
    }

    #[test]
    fn websocket_clients_get_their_first_that_is_served() {
        let mut asked = vec![
            ("connection", "Upgrade"),
            ("upgrade", "websocket"),
            ("sec-websocket-version", "13"),
            ("sec-websocket-protocol", "v6, v4, v5"),
            ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ];
        let Ok(Upgrade::WebSocket { protocol, .. }) = get(&asked) else { panic!("refused") };
        assert_eq!(protocol, Some("v4"));
        let posted = agree(&Method::POST, &headers(&asked), OFFER).unwrap_err();
        assert_eq!(posted.status(), StatusCode::METHOD_NOT_ALLOWED);
        asked[4].1 = "short";
        assert_eq!(get(&asked).unwrap_err().status(), StatusCode::BAD_REQUEST);
    }

    #[test]
    fn all_else_is_a_bad_request() {
        for fields in [
            &[("accept", "*/*")][..],
            &[("upgrade", "SPDY/3.1")],
            &[("connection", "upgrade"), ("upgrade", "h2c")],
            &[("connection", "upgrade"), ("upgrade", "websocket")],
        ] {
            assert_eq!(get(fields).unwrap_err().status(), StatusCode::BAD_REQUEST);
        }
    }
}
