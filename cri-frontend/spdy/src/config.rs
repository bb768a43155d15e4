//! What a session may cost.

use std::time::Duration;

/// Bounds of one session. All memory that a peer can make a session hold follows from them.
#[derive(Debug, Clone)]
pub struct Config {
    /// Streams that may exist at once. A stream counts until its owner has let go of it, so that a peer that opens
    /// and resets streams in a loop gets no further than one that leaves them open.
    pub max_streams: usize,
    /// Bytes of one stream that are held for an owner who does not read, and the window that a peer is told for
    /// each stream. At least 64 KiB, which SPDY lets a peer send before it hears of another number.
    pub stream_window: u32,
    /// The same for all streams together. At least 64 KiB.
    pub session_window: u32,
    /// Bytes of one header block, both before and after compression.
    pub max_header_block: usize,
    /// Values in the headers of one stream.
    pub max_headers: usize,
    /// What is believed of a peer's flow control.
    pub flow_control: FlowControl,
    /// After this time without data in either direction and without a new stream the session ends. Pings do not
    /// count: they say that the peer's machine is there, not that somebody uses the session.
    pub idle_timeout: Option<Duration>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            max_streams: 512,
            stream_window: 1 << 20,
            session_window: 8 << 20,
            max_header_block: 64 << 10,
            max_headers: 128,
            flow_control: FlowControl::Detect,
            idle_timeout: None,
        }
    }
}

/// Whether a peer minds windows. The most used client of all, spdystream in `kubectl` and its like, neither does nor
/// says so; see the crate's documentation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum FlowControl {
    /// Find out: a peer that sends a WINDOW_UPDATE or its initial window minds them from then on, one that sends more
    /// than it may does not.
    #[default]
    Detect,
    /// As the draft has it, from the first byte on.
    Required,
}
