//! Exec, attach and port-forward: the server that a client comes to with the URL that the CRI call gave it.
//!
//! ```text
//! grpc: Exec, Attach, PortForward ──▶ request (checked) ──▶ token ──▶ URL
//! client ── HTTP with the token ──▶ server ──▶ upgrade (SPDY or WebSocket) ──▶ spdy · websocket (streams of bytes)
//!                                                     ──▶ exec · attach · port_forward ──▶ the pod's shim
//! ```
//!
//! What a client can see follows Kubernetes' own library, the Go module `k8s.io/cri-streaming`.

mod attach;
mod copy;
mod error;
mod exec;
mod forward;
mod output;
mod pairs;
mod port_forward;
mod remote_command;
mod request;
mod resize;
mod server;
mod spdy;
mod status;
mod tls;
mod token;
mod transport;
mod tunnel;
mod upgrade;
mod websocket;

use std::{net::SocketAddr, time::Duration};

pub use request::{Request, attach_request, exec_request, port_forward_request};
pub use server::{bind, serve};
use token::Tokens;

use crate::error::Error;

/// The client's streams must all be there within this time.
const STREAM_CREATION: Duration = Duration::from_secs(30);

/// What the CRI calls need of the server.
#[derive(Debug)]
pub struct Streaming {
    /// What clients may come for.
    tokens: Tokens<Request>,
    /// `http://127.0.0.1:18800`
    base_url: String,
    idle_timeout: Duration,
}

impl Streaming {
    fn new(address: SocketAddr, tls: bool, idle_timeout: Duration) -> Self {
        let scheme = if tls { "https" } else { "http" };
        Self { tokens: Tokens::default(), base_url: format!("{scheme}://{address}"), idle_timeout }
    }

    /// The URL at which a request is served, once, within a minute.
    ///
    /// # Errors
    /// Too many are waited for, or there is no randomness.
    pub fn url(&self, request: Request) -> Result<String, Error> {
        let path = request.path();
        let token = self.tokens.issue(path, request)?;
        Ok(format!("{}/{path}/{token}", self.base_url))
    }
}
