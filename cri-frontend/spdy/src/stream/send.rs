//! The sending half of a stream.

use std::{
    future::poll_fn,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use tokio::io::AsyncWrite;

use super::Key;
use crate::{
    error::StreamError,
    frame::{ResetStatus, StreamId},
};

/// The most that one `write` takes.
const MAX_WRITE: usize = 64 << 10;

/// What is sent to the peer on a stream: by [`Self::send`], or as an [`AsyncWrite`], whose shutdown is
/// [`Self::finish`].
///
/// Dropping it unfinished resets the stream, so that the peer does not take a part for the whole.
#[derive(Debug)]
pub struct SendHalf {
    key: Key,
}

impl SendHalf {
    pub(super) fn new(key: Key) -> Self {
        Self { key }
    }

    /// The stream's id.
    #[must_use]
    pub fn id(&self) -> StreamId {
        self.key.id
    }

    /// Queues bytes, as soon as less than 64 KiB wait on this stream. Returns before they are written; the session's
    /// driver does not finish before they are. Cancel-safe: either all or none of them are queued.
    ///
    /// # Errors
    /// The stream was reset or finished, or the session is over.
    pub async fn send(&mut self, bytes: Bytes) -> Result<(), StreamError> {
        poll_fn(|cx| self.key.shared.lock().poll_room(self.key.id, cx)).await?;
        self.key.shared.lock().send(self.key.id, bytes);
        Ok(())
    }

    /// Ends what is sent: the peer sees the end (FIN) after all that was queued.
    ///
    /// # Errors
    /// The stream was reset, or the session is over.
    pub fn finish(self) -> Result<(), StreamError> {
        self.key.shared.lock().finish(self.key.id)
    }

    /// Ends the stream in both directions. What was queued and not written is lost.
    pub fn reset(self, status: ResetStatus) {
        self.key.shared.lock().cancel(self.key.id, status);
    }
}

impl AsyncWrite for SendHalf {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let mut state = self.key.shared.lock();
        ready!(state.poll_room(self.key.id, cx))?;
        let part = &bytes[..bytes.len().min(MAX_WRITE)];
        state.send(self.key.id, Bytes::copy_from_slice(part));
        Poll::Ready(Ok(part.len()))
    }

    /// Ready at once: what is queued is written without being asked.
    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(self.key.shared.lock().finish(self.key.id)?))
    }
}

impl Drop for SendHalf {
    fn drop(&mut self) {
        self.key.shared.lock().drop_output(self.key.id);
    }
}
