//! The receiving half of a stream.

use std::{
    future::poll_fn,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, ReadBuf};

use super::Key;
use crate::{error::StreamError, frame::StreamId};

/// What the peer sends on a stream: by [`Self::recv`], or as an [`AsyncRead`].
///
/// Reading slowly holds the peer back. Dropping it throws away what is still to come: the peer may be told so only by a
/// reset of the whole stream, which follows when the sending half has finished too.
#[derive(Debug)]
pub struct RecvHalf {
    key: Key,
    /// Taken from the session, and not yet by the reader of [`AsyncRead`].
    rest: Bytes,
}

impl RecvHalf {
    pub(super) fn new(key: Key) -> Self {
        Self { key, rest: Bytes::new() }
    }

    /// The stream's id.
    #[must_use]
    pub fn id(&self) -> StreamId {
        self.key.id
    }

    /// The next bytes, at most 64 KiB and never empty, in no relation to the peer's frames; none at the end that the
    /// peer set with FIN. Cancel-safe.
    ///
    /// # Errors
    /// The stream or the session ended otherwise. What came before that is returned first.
    pub async fn recv(&mut self) -> Result<Option<Bytes>, StreamError> {
        poll_fn(|cx| self.poll_recv(cx)).await
    }

    /// What [`Self::recv`] waits for.
    ///
    /// # Errors
    /// As there.
    pub fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, StreamError>> {
        if !self.rest.is_empty() {
            return Poll::Ready(Ok(Some(std::mem::take(&mut self.rest))));
        }
        self.key.shared.lock().poll_receive(self.key.id, cx)
    }
}

impl AsyncRead for RecvHalf {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if buf.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        if let Some(mut bytes) = ready!(self.poll_recv(cx))? {
            let part = bytes.len().min(buf.remaining());
            buf.put_slice(&bytes[..part]);
            bytes.advance(part);
            self.rest = bytes;
        }
        Poll::Ready(Ok(()))
    }
}

impl Drop for RecvHalf {
    fn drop(&mut self) {
        self.key.shared.lock().drop_input(self.key.id);
    }
}
