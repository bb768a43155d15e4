//! Why a session or a stream is over.

use std::{io, time::Duration};

use crate::{
    frame::{FrameError, GoAwayStatus, ResetStatus, StreamId},
    headers::CompressionError,
};

/// How a session ended that went well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// Nobody accepts further streams, the last one is over, and all of it was written.
    Finished,
    /// The peer closed the connection between two frames.
    ByPeer,
}

/// How a session ended that did not.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// The peer sent what is no SPDY/3.1.
    #[error("the peer broke the framing: {0}")]
    Frame(#[from] FrameError),
    /// Headers can't be read any longer.
    #[error("the peer broke the header compression: {0}")]
    Compression(#[from] CompressionError),
    /// A stream id that only the server may use.
    #[error("the peer opened stream {0}, whose id is the server's")]
    StreamParity(StreamId),
    /// Ids must grow.
    #[error("the peer opened stream {id} after stream {last}")]
    StreamOrder {
        /// The new stream.
        id: StreamId,
        /// The highest id so far.
        last: u32,
    },
    /// More data than the session's window allowed, from a peer that minds windows.
    #[error("the peer sent more than the session's window")]
    WindowExceeded,
    /// A window beyond 2³¹−1 bytes, or an increment of 0 for the session.
    #[error("the peer sent an impossible window")]
    WindowInvalid,
    /// The connection ended within a frame.
    #[error("the connection ended within a frame")]
    Truncated,
    /// Nothing happened for [`Config::idle_timeout`](crate::Config::idle_timeout).
    #[error("no data for {0:?}")]
    Idle(Duration),
    /// The connection failed.
    #[error("the connection failed: {0}")]
    Io(#[from] io::Error),
}

impl SessionError {
    /// What the peer is told, if it can still be told anything.
    pub(crate) fn go_away(&self) -> Option<GoAwayStatus> {
        match self {
            Self::Frame(_)
            | Self::StreamParity(_)
            | Self::StreamOrder { .. }
            | Self::WindowExceeded
            | Self::WindowInvalid
            | Self::Compression(CompressionError::Corrupt | CompressionError::TooLarge { .. }) => {
                Some(GoAwayStatus::ProtocolError)
            }
            Self::Compression(CompressionError::Compress) => Some(GoAwayStatus::InternalError),
            Self::Idle(_) => Some(GoAwayStatus::Ok),
            Self::Truncated | Self::Io(_) => None,
        }
    }
}

/// Why a stream can't be read or written any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum StreamError {
    /// The peer reset it.
    #[error("the peer reset the stream: {0}")]
    Reset(ResetStatus),
    /// We reset it, because of what the peer sent on it.
    #[error("the stream was reset, because the peer broke the protocol on it: {0}")]
    Violated(ResetStatus),
    /// Its owner reset it, or dropped its sending half without finishing it.
    #[error("the stream was cancelled")]
    Cancelled,
    /// The session is over.
    #[error("the session of the stream is over")]
    SessionEnded,
    /// Its sending half is finished, or never was: the peer opened the stream for one direction only.
    #[error("nothing can be sent on the stream any more")]
    Finished,
    /// The headers have more than [`Config::max_header_block`](crate::Config::max_header_block) bytes.
    #[error("the headers are larger than {0} bytes")]
    HeadersTooLarge(usize),
}

impl From<StreamError> for io::Error {
    fn from(error: StreamError) -> Self {
        let kind = match error {
            StreamError::Reset(_) => io::ErrorKind::ConnectionReset,
            StreamError::Violated(_) | StreamError::HeadersTooLarge(_) => io::ErrorKind::InvalidData,
            StreamError::Cancelled | StreamError::SessionEnded => io::ErrorKind::ConnectionAborted,
            StreamError::Finished => io::ErrorKind::BrokenPipe,
        };
        Self::new(kind, error)
    }
}
