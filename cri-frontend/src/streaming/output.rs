//! A stream of bytes to the client and one from it, whatever carries them.

use std::io;

use a3s_box_spdy::{ResetStatus, SendHalf};
use bytes::Bytes;
use tokio::io::AsyncRead;

use super::websocket;

/// What comes from the client.
pub type Input = Box<dyn AsyncRead + Send + Unpin>;

/// What goes to the client.
#[derive(Debug)]
pub enum Output {
    /// By SPDY.
    Spdy(SendHalf),
    /// By a channel of a WebSocket.
    WebSocket(websocket::Sender),
}

impl Output {
    /// Sends bytes, as soon as the client keeps up.
    ///
    /// # Errors
    /// The client does not want them any more, or has gone.
    pub async fn send(&mut self, bytes: Bytes) -> io::Result<()> {
        match self {
            Self::Spdy(stream) => Ok(stream.send(bytes).await?),
            Self::WebSocket(channel) => channel.send(&bytes).await,
        }
    }

    /// Says that this was all.
    pub fn finish(self) {
        match self {
            // A client that has gone needs no end.
            Self::Spdy(stream) => drop(stream.finish()),
            // A channel has no end of its own: the connection has.
            Self::WebSocket(_) => {}
        }
    }

    /// Breaks the stream off, both ways.
    pub fn reset(self) {
        if let Self::Spdy(stream) = self {
            stream.reset(ResetStatus::Cancel);
        }
    }
}
