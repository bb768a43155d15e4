//! A SPDY session as a running connection.

use std::time::Duration;

use a3s_box_spdy::{Config, Headers, Incoming, Session};
use tokio::io::{AsyncRead, AsyncWrite};
use tracing::debug;

use super::transport::{Transport, Watched};

/// The header that says what a stream is for.
const STREAM_TYPE: &str = "streamtype";

/// Takes over a connection after its handshake.
pub fn open(
    connection: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    idle: Duration,
) -> (Session, Transport) {
    let config = Config { idle_timeout: Some(idle), ..Config::default() };
    let (connection, writing) = Watched::new(connection);
    let (session, driver) = Session::new(connection, &config);
    let driver = async move {
        match driver.run().await {
            Ok(ended) => debug!(?ended, "a SPDY connection ended"),
            Err(error) => debug!(%error, "a SPDY connection ended"),
        }
    };
    (session, Transport::run(driver, writing))
}

/// What a stream says that it is for.
pub fn stream_type(stream: &Incoming) -> Option<&str> {
    stream.headers().get(STREAM_TYPE)
}

/// The headers of a reply: none.
pub fn no_headers() -> Headers {
    Headers::new()
}
