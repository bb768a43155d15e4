//! A session: one connection, many streams.
//!
//! ```text
//!             ┌─────────── Driver ───────────┐
//! connection ─┤ reader ─▶ State ─▶ writer    ├─ connection
//!             └─────────── ▲ │ ──────────────┘
//!                 accept,  │ ▼  recv
//!                 send   owners of streams
//! ```

mod driver;
mod inbound;
mod outbound;
mod ownership;
mod reader;
mod state;
mod stream_state;
mod window;
mod writer;

use std::{future::poll_fn, sync::Arc};

pub use driver::Driver;
pub(crate) use state::{Opening, Shared};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::{config::Config, stream::Incoming};

/// The streams that a peer opens. Dropping it refuses all that were not accepted, and those that still come; the
/// session then ends with its last stream.
#[derive(Debug)]
pub struct Session {
    shared: Arc<Shared>,
}

impl Session {
    /// A session with the peer at the other end of `connection`, which begins with the peer's first frame. It lives as
    /// long as the [`Driver`] runs.
    ///
    /// On TCP, set `TCP_NODELAY`: frames are written as soon as they are there, and each would wait for the
    /// acknowledgement of the one before.
    pub fn new<C: AsyncRead + AsyncWrite>(connection: C, config: &Config) -> (Self, Driver<C>) {
        let shared = Shared::new(config);
        (Self { shared: shared.clone() }, Driver::new(connection, config, shared))
    }

    /// The next stream that the peer opens; none when it opens no more, or the session is over. Cancel-safe.
    pub async fn accept(&mut self) -> Option<Incoming> {
        let opening = poll_fn(|cx| self.shared.lock().poll_accept(cx)).await?;
        Some(Incoming::new(self.shared.clone(), opening))
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.shared.lock().stop_accepting();
    }
}
