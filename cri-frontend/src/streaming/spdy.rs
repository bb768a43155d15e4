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

#[cfg(test)]
pub mod testing {
    //! A client that speaks in single frames.

    use a3s_box_spdy::{
        StreamId,
        frame::{Frame, Parser},
        headers::Compressor,
    };
    use bytes::BytesMut;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

    use super::*;

    /// See the module.
    pub struct Client {
        pipe: DuplexStream,
        buffer: BytesMut,
        parser: Parser,
        compressor: Compressor,
    }

    impl Client {
        /// A client, and the session that serves it.
        pub fn pair() -> (Self, Session, Transport) {
            let (pipe, connection) = duplex(64 * 1024);
            let (session, transport) = open(connection, Duration::from_secs(3600));
            let (buffer, parser) = (BytesMut::new(), Parser::new(1 << 20));
            (Self { pipe, buffer, parser, compressor: Compressor::new().unwrap() }, session, transport)
        }

        /// Opens a stream.
        pub async fn open(&mut self, id: u32, headers: &[(&str, &str)]) {
            let headers: Headers = headers.iter().copied().collect();
            let frame = Frame::SynStream {
                id: StreamId::new(id).unwrap(),
                associated: None,
                priority: 0,
                fin: false,
                unidirectional: false,
                block: self.compressor.compress(&headers.to_block()).unwrap().into(),
            };
            let mut bytes = BytesMut::new();
            frame.write_to(&mut bytes);
            self.pipe.write_all(&bytes).await.unwrap();
        }

        /// What comes next; none at the connection's end.
        pub async fn next(&mut self) -> Option<Frame> {
            loop {
                match self.parser.next(&mut self.buffer).unwrap() {
                    Some(Frame::Settings(_) | Frame::WindowUpdate { .. }) => {}
                    Some(frame) => return Some(frame),
                    None => {
                        if self.pipe.read_buf(&mut self.buffer).await.unwrap() == 0 {
                            return None;
                        }
                    }
                }
            }
        }
    }
}
