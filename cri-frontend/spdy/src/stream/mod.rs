//! One stream, as its owner has it.

mod incoming;
mod receive;
mod send;

use std::sync::Arc;

pub use incoming::Incoming;
pub use receive::RecvHalf;
pub use send::SendHalf;

use crate::{frame::StreamId, session::Shared};

/// An accepted stream. Its two halves are independent, and may be owned by two tasks.
#[derive(Debug)]
pub struct Stream {
    /// From the peer.
    pub recv: RecvHalf,
    /// To the peer.
    pub send: SendHalf,
}

/// Which stream of which session.
#[derive(Debug, Clone)]
struct Key {
    shared: Arc<Shared>,
    id: StreamId,
}
