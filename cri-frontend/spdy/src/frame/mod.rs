//! Frames on the wire: bytes to [`Frame`] and back, without I/O, compression or state of a session.
//!
//! ```text
//!  control frame                          data frame
//! ┌─┬───────────────┬────────────────┐   ┌─┬────────────────────────────────┐
//! │1│  version (15) │  type (16)     │   │0│  stream id (31)                │
//! ├─┴───────┬───────┴────────────────┤   ├─┴───────┬────────────────────────┤
//! │ flags(8)│  length (24)           │   │ flags(8)│  length (24)           │
//! ├─────────┴────────────────────────┤   ├─────────┴────────────────────────┤
//! │ payload                          │   │ payload                          │
//! └──────────────────────────────────┘   └──────────────────────────────────┘
//! ```
//!
//! Draft 3.1, section 2.2 and 2.6. Header blocks stay compressed here: see [`crate::headers`].

mod parse;
mod serialize;
mod status;

use std::fmt;

use bytes::Bytes;

pub use parse::{FrameError, Parser};
pub use serialize::data_frame_header;
pub use status::{GoAwayStatus, ResetStatus};

/// The version in control frames: SPDY/3.1 differs from SPDY/3 by session flow control, not by this number.
pub const VERSION: u16 = 3;
/// Bytes before a frame's payload.
pub const FRAME_HEADER: usize = 8;
/// The largest payload that the 24 bits of a length can tell.
pub const MAX_PAYLOAD: usize = (1 << 24) - 1;
/// The largest window, increment and stream id: 31 bits.
pub const MAX_31_BITS: u32 = 0x7fff_ffff;

/// `FLAG_FIN`: the sender sends nothing more on this stream.
const FLAG_FIN: u8 = 0x01;
/// `FLAG_UNIDIRECTIONAL` of SYN_STREAM: the recipient may send nothing on this stream.
const FLAG_UNIDIRECTIONAL: u8 = 0x02;

/// The types of control frames that SPDY/3.1 knows, but for CREDENTIAL.
mod kind {
    pub const SYN_STREAM: u16 = 1;
    pub const SYN_REPLY: u16 = 2;
    pub const RST_STREAM: u16 = 3;
    pub const SETTINGS: u16 = 4;
    pub const PING: u16 = 6;
    pub const GOAWAY: u16 = 7;
    pub const HEADERS: u16 = 8;
    pub const WINDOW_UPDATE: u16 = 9;
}

/// A stream's number: 1 to 2³¹−1, odd where the client opened the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StreamId(u32);

impl StreamId {
    /// The id of this value; the reserved top bit is ignored, and zero is no stream.
    #[must_use]
    pub fn new(value: u32) -> Option<Self> {
        let value = value & MAX_31_BITS;
        (value != 0).then_some(Self(value))
    }

    /// The value.
    #[must_use]
    pub fn get(self) -> u32 {
        self.0
    }

    /// Whether a client may open a stream of this id.
    #[must_use]
    pub fn is_clients(self) -> bool {
        self.0 % 2 == 1
    }
}

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One entry of a SETTINGS frame. Its flags (persist, persisted) mean nothing to a server without cookies of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Setting {
    /// What is set: 24 bits.
    pub id: u32,
    /// To what.
    pub value: u32,
}

impl Setting {
    /// How many streams the sender lets the other side open.
    pub const MAX_CONCURRENT_STREAMS: u32 = 4;
    /// The window in bytes with which each stream towards the sender begins.
    pub const INITIAL_WINDOW_SIZE: u32 = 7;
}

/// A frame; of a data frame, the part that has come so far.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// Opens a stream.
    SynStream {
        /// The new stream.
        id: StreamId,
        /// The stream that this one belongs to, if any.
        associated: Option<StreamId>,
        /// 0 (highest) to 7.
        priority: u8,
        /// The opener sends nothing on it.
        fin: bool,
        /// The other side sends nothing on it.
        unidirectional: bool,
        /// The compressed header block.
        block: Bytes,
    },
    /// Accepts a stream.
    SynReply {
        /// The stream.
        id: StreamId,
        /// The accepting side sends nothing on it.
        fin: bool,
        /// The compressed header block.
        block: Bytes,
    },
    /// Ends a stream in both directions at once.
    RstStream {
        /// The stream.
        id: StreamId,
        /// Why.
        status: ResetStatus,
    },
    /// Parameters of the session.
    Settings(Vec<Setting>),
    /// To be sent back by the side that did not begin it.
    Ping(u32),
    /// The sender accepts no further streams.
    GoAway {
        /// The last stream that the sender of this accepted; 0 for none.
        last_good: u32,
        /// Why.
        status: GoAwayStatus,
    },
    /// More headers on an open stream.
    Headers {
        /// The stream.
        id: StreamId,
        /// The sender sends nothing more on it.
        fin: bool,
        /// The compressed header block.
        block: Bytes,
    },
    /// The receiver may be sent this many bytes more.
    WindowUpdate {
        /// On which stream; none for the session as a whole.
        id: Option<StreamId>,
        /// 0 to 2³¹−1; 0 is an error.
        delta: u32,
    },
    /// A piece of a data frame, in the order of the wire. A frame of 16 MiB is never held whole.
    Data {
        /// The stream.
        id: StreamId,
        /// This is the last piece of the last frame.
        fin: bool,
        /// The bytes; empty only in an empty frame.
        bytes: Bytes,
    },
}
