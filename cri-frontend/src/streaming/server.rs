//! The HTTP side: who comes, what for, and whether he may.

use std::{convert::Infallible, io, net::SocketAddr, sync::Arc, time::Duration};

use a3s_box_proto::config;
use bytes::Bytes;
use http_body_util::Full;
use hyper::{
    Method, Request as HttpRequest, Response, StatusCode,
    body::Incoming,
    header::{
        ALLOW, CONNECTION, HOST, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_PROTOCOL,
        SEC_WEBSOCKET_VERSION, UPGRADE,
    },
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use rustix::net::sockopt::{set_socket_keepalive, set_tcp_keepcnt, set_tcp_keepidle, set_tcp_keepintvl};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};
use tokio_rustls::TlsAcceptor;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_util::task::TaskTracker;
use tracing::{debug, info, warn};

use super::{
    Request, Streaming, attach,
    error::StreamingError,
    exec, port_forward, remote_command, tls,
    upgrade::{self, Offer, SPDY, STREAM_PROTOCOL, Upgrade, WEBSOCKET_VERSION},
};
use crate::node::Node;

/// Connections at once, sessions included.
const MOST_CONNECTIONS: usize = 2048;
/// For a request's headers, and for a TLS handshake.
const PATIENCE: Duration = Duration::from_secs(10);
/// Our clients' requests have some hundred bytes.
const HEADER_BYTES: usize = 16 * 1024;
/// A silent client's machine is asked whether it is there after this time, and again after it, so many times: as Go's
/// servers do, Kubernetes' library among them.
const ALIVE: Duration = Duration::from_secs(15);
const ALIVE_PROBES: u32 = 9;
/// After a failed accept (no descriptors, mostly) the next is tried this much later.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The server's socket, and how it is spoken to.
pub struct Listening {
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
}

/// Listens, and says what the CRI calls need to know.
///
/// # Errors
/// The address is taken, or the certificate cannot be used.
pub async fn bind(config: &config::Streaming) -> Result<(Streaming, Listening), StreamingError> {
    let tls = tls::acceptor(config)?;
    let failed = |source| StreamingError::Listen { address: config.address, source };
    let listener = TcpListener::bind(config.address).await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    if tls.is_none() && !address.ip().is_loopback() {
        warn!(%address, "exec, attach and port-forward are served without TLS at an address that others may reach: set streaming.tls_cert and streaming.tls_key");
    }
    let streaming = Streaming::new(address, tls.is_some(), Duration::from_secs(config.idle_timeout_s));
    Ok((streaming, Listening { listener, tls }))
}

/// Serves until the node is told to end. Sessions end with it: their processes do not.
pub async fn serve(node: Arc<Node>, listening: Listening) {
    let Listening { listener, tls } = listening;
    info!(url = node.streaming.base_url, "serving exec, attach and port-forward");
    let connections = TaskTracker::new();
    let places = Arc::new(Semaphore::new(MOST_CONNECTIONS));
    let accepting = async {
        loop {
            let (stream, peer) = match listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    warn!(%error, "a streaming client was not accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let Ok(place) = places.clone().try_acquire_owned() else {
                warn!(%peer, most = MOST_CONNECTIONS, "a streaming client was turned away: too many connections");
                continue;
            };
            let sessions = connections.clone();
            let connection = Connection { node: node.clone(), peer, sessions, _place: Arc::new(place) };
            let ended = node.shutdown.clone().cancelled_owned();
            let tls = tls.clone();
            connections.spawn(async move {
                tokio::select! {
                    () = connection.serve(stream, tls) => {}
                    () = ended => {}
                }
            });
        }
    };
    tokio::select! { () = accepting => {} () = node.shutdown.cancelled() => {} }
    // Each ends with the node's shutdown.
    connections.close();
    connections.wait().await;
}

/// A client's connection.
#[derive(Clone)]
struct Connection {
    node: Arc<Node>,
    peer: SocketAddr,
    /// Where the session runs that the connection becomes.
    sessions: TaskTracker,
    /// Kept by the session that the connection becomes.
    _place: Arc<OwnedSemaphorePermit>,
}

type Answer = Response<Full<Bytes>>;

impl Connection {
    async fn serve(self, stream: TcpStream, tls: Option<TlsAcceptor>) {
        if let Err(error) = prepare(&stream) {
            debug!(peer = %self.peer, %error, "a streaming client has gone at once");
            return;
        }
        match tls {
            None => self.serve_http(stream).await,
            Some(tls) => match timeout(PATIENCE, tls.accept(stream)).await {
                Ok(Ok(stream)) => self.serve_http(stream).await,
                Ok(Err(error)) => debug!(peer = %self.peer, %error, "no TLS handshake"),
                Err(_) => debug!(peer = %self.peer, "no TLS handshake in time"),
            },
        }
    }

    async fn serve_http(self, stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) {
        let peer = self.peer;
        let service = service_fn(move |request| {
            let connection = self.clone();
            async move { Ok::<_, Infallible>(connection.answer(request)) }
        });
        let served = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(PATIENCE)
            .max_buf_size(HEADER_BYTES)
            .serve_connection(TokioIo::new(stream), service)
            .with_upgrades()
            .await;
        if let Err(error) = served {
            debug!(%peer, %error, "a streaming client's connection ended");
        }
    }

    fn answer(self, mut request: HttpRequest<Incoming>) -> Answer {
        if !is_local_name(&request) {
            return refuse(StatusCode::FORBIDDEN, "the Host header must be an address or localhost");
        }
        let path = request.uri().path().to_owned();
        let mut parts = path.trim_start_matches('/').splitn(2, '/');
        let (kind, token) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        let offer = match kind {
            "exec" | "attach" => remote_command::OFFER,
            "portforward" => port_forward::OFFER,
            _ => return refuse(StatusCode::NOT_FOUND, "there is nothing at this URL"),
        };
        if request.method() != Method::GET && request.method() != Method::POST {
            let mut answer = refuse(StatusCode::METHOD_NOT_ALLOWED, "GET and POST are for upgrades");
            answer.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, POST"));
            return answer;
        }
        let agreed = match upgrade::agree(request.method(), request.headers(), offer) {
            Ok(agreed) => agreed,
            Err(refusal) => return refuse_upgrade(&refusal, offer),
        };
        let taken = self.node.streaming.tokens.take(kind, token, |wanted| fits(wanted, &agreed));
        let wanted = match taken {
            Ok(Some(wanted)) => wanted,
            Ok(None) => {
                let why = "no request waits under this token: it was used, is over a minute old, or was never given";
                return refuse(StatusCode::NOT_FOUND, why);
            }
            Err(refusal) => return refuse_upgrade(&refusal, offer),
        };
        let answer = switching(&agreed);
        let upgraded = hyper::upgrade::on(&mut request);
        let node = self.node.clone();
        let sessions = self.sessions.clone();
        sessions.spawn(async move {
            let ended = node.shutdown.clone().cancelled_owned();
            let session = async {
                match upgraded.await {
                    Ok(stream) => converse(&self.node, wanted, agreed, TokioIo::new(stream)).await,
                    Err(error) => debug!(peer = %self.peer, %error, "the upgrade failed"),
                }
            };
            tokio::select! { () = session => {} () = ended => {} }
        });
        answer
    }
}

/// Whether what was agreed upon can carry what the call asked for.
fn fits(wanted: &Request, agreed: &Upgrade) -> Result<(), upgrade::Refusal> {
    match wanted {
        Request::Exec(_) | Request::Attach(_) => Ok(()),
        Request::PortForward(wanted) => port_forward::fits(wanted, agreed),
    }
}

async fn converse(
    node: &Arc<Node>,
    wanted: Request,
    agreed: Upgrade,
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
) {
    match wanted {
        Request::Exec(wanted) => {
            if let Some(client) = remote_command::open(node, wanted.streams, &agreed, stream).await {
                exec::serve(node, wanted, client).await;
            }
        }
        Request::Attach(wanted) => {
            if let Some(client) = remote_command::open(node, wanted.streams, &agreed, stream).await {
                attach::serve(node, wanted, client).await;
            }
        }
        Request::PortForward(wanted) => port_forward::serve(node, wanted, &agreed, stream).await,
    }
}

fn refuse_upgrade(refusal: &upgrade::Refusal, offer: Offer) -> Answer {
    let mut answer = refuse(refusal.status(), &refusal.to_string());
    let headers = answer.headers_mut();
    match refusal {
        upgrade::Refusal::Protocol { .. } => {
            for protocol in offer.spdy {
                // As Kubernetes' library tells it.
                let name = "x-accepted-stream-protocol-versions";
                headers.append(name, HeaderValue::from_static(protocol));
            }
        }
        upgrade::Refusal::Handshake(_) => {
            headers.insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static(WEBSOCKET_VERSION));
        }
        upgrade::Refusal::Method => {
            headers.insert(ALLOW, HeaderValue::from_static("GET"));
        }
        upgrade::Refusal::NoUpgrade(_) | upgrade::Refusal::Ports { .. } => {}
    }
    answer
}

fn switching(agreed: &Upgrade) -> Answer {
    let mut answer = Response::new(Full::default());
    *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = answer.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    match agreed {
        Upgrade::Spdy(protocol) => {
            headers.insert(UPGRADE, HeaderValue::from_static(SPDY));
            headers.insert(STREAM_PROTOCOL, HeaderValue::from_static(protocol));
        }
        Upgrade::WebSocket { key, protocol } => {
            headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
            if let Ok(accept) = HeaderValue::from_str(&derive_accept_key(key)) {
                headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
            }
            if let Some(protocol) = protocol {
                headers.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(protocol));
            }
        }
    }
    answer
}

fn prepare(stream: &TcpStream) -> io::Result<()> {
    // Every frame is written as soon as it is there; to wait for more costs 40 ms a turn.
    stream.set_nodelay(true)?;
    // A client that goes takes its exec with it, also where its machine cannot say so any more.
    set_tcp_keepidle(stream, ALIVE)?;
    set_tcp_keepintvl(stream, ALIVE)?;
    set_tcp_keepcnt(stream, ALIVE_PROBES)?;
    Ok(set_socket_keepalive(stream, true)?)
}

fn refuse(status: StatusCode, why: &str) -> Answer {
    let mut answer = Response::new(Full::from(format!("{why}\n")));
    *answer.status_mut() = status;
    answer
}

/// Whether the client means this machine by its address: a page in a browser whose name was made to resolve to
/// loopback (DNS rebinding) does not.
fn is_local_name(request: &HttpRequest<Incoming>) -> bool {
    let host = request.headers().get(HOST).and_then(|host| host.to_str().ok());
    host.is_some_and(is_address)
}

fn is_address(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let bare = name.strip_prefix('[').and_then(|name| name.strip_suffix(']'));
    match bare {
        Some(ipv6) => ipv6.parse::<std::net::Ipv6Addr>().is_ok(),
        None => name.eq_ignore_ascii_case("localhost") || name.parse::<std::net::Ipv4Addr>().is_ok(),
    }
}

#[cfg(test)]
mod tests {
    use rustix::net::sockopt::{socket_keepalive, tcp_keepcnt, tcp_keepidle};

    use super::*;

    #[test]
    fn hosts_are_addresses() {
        for host in ["127.0.0.1:18800", "localhost:1", "[::1]:18800", "10.1.2.3", "[fd00::1]"] {
            assert!(is_address(host), "{host}");
        }
        for host in ["evil.example:18800", "127.0.0.1.evil.example", "[evil]:1", "", ":80", "::1"] {
            assert!(!is_address(host), "{host}");
        }
    }

    #[tokio::test]
    async fn an_address_that_others_reach_is_warned_of() {
        for (address, warns) in [("0.0.0.0:0", true), ("127.0.0.1:0", false), ("[::1]:0", false)] {
            let log = tempfile::NamedTempFile::new().unwrap();
            let writer = Arc::new(log.reopen().unwrap());
            let subscriber = tracing_subscriber::fmt().with_writer(writer).finish();
            let logging = tracing::subscriber::set_default(subscriber);
            let config =
                config::Streaming { address: address.parse().unwrap(), ..config::Streaming::default() };
            bind(&config).await.unwrap();
            drop(logging);
            let said = std::fs::read_to_string(log.path()).unwrap();
            assert_eq!(said.contains("without TLS"), warns, "{address}: {said:?}");
        }
    }

    #[tokio::test]
    async fn a_clients_machine_is_asked_whether_it_is_there() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let _client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        prepare(&stream).unwrap();
        assert!(stream.nodelay().unwrap() && socket_keepalive(&stream).unwrap());
        assert_eq!((tcp_keepidle(&stream).unwrap(), tcp_keepcnt(&stream).unwrap()), (ALIVE, ALIVE_PROBES));
    }

    #[test]
    fn an_upgrade_tells_what_was_agreed() {
        let answer = switching(&Upgrade::Spdy("v4.channel.k8s.io"));
        assert_eq!(answer.status(), StatusCode::SWITCHING_PROTOCOLS);
        assert_eq!(answer.headers()[UPGRADE], SPDY);
        assert_eq!(answer.headers()[STREAM_PROTOCOL], "v4.channel.k8s.io");
        // The example of RFC 6455, section 1.3.
        let key = b"dGhlIHNhbXBsZSBub25jZQ==".to_vec();
        let answer = switching(&Upgrade::WebSocket { key, protocol: None });
        assert_eq!(answer.headers()[SEC_WEBSOCKET_ACCEPT], "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }
}
