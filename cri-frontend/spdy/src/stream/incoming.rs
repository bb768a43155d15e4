//! A stream that the peer has opened, and that our side has not answered.

use std::{mem, sync::Arc};

use super::{Key, RecvHalf, SendHalf, Stream};
use crate::{
    error::StreamError,
    frame::{ResetStatus, StreamId},
    headers::Headers,
    session::{Opening, Shared},
};

/// An opened stream, to be replied to or refused. Dropping it refuses it. Data may come already.
#[derive(Debug)]
pub struct Incoming {
    /// None once it was answered.
    key: Option<Key>,
    opening: Opening,
}

impl Incoming {
    pub(crate) fn new(shared: Arc<Shared>, opening: Opening) -> Self {
        Self { key: Some(Key { shared, id: opening.id }), opening }
    }

    /// The stream's id.
    #[must_use]
    pub fn id(&self) -> StreamId {
        self.opening.id
    }

    /// The headers of its SYN_STREAM.
    #[must_use]
    pub fn headers(&self) -> &Headers {
        &self.opening.headers
    }

    /// The stream that the peer associates it with, if any. It need not exist.
    #[must_use]
    pub fn associated(&self) -> Option<StreamId> {
        self.opening.associated
    }

    /// 0 (highest) to 7. All streams get the same turn here, whatever theirs is.
    #[must_use]
    pub fn priority(&self) -> u8 {
        self.opening.priority
    }

    /// Whether the peer will send nothing on it (FLAG_FIN).
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.opening.fin
    }

    /// Whether we may send nothing on it, not even a reply (FLAG_UNIDIRECTIONAL).
    #[must_use]
    pub fn is_unidirectional(&self) -> bool {
        self.opening.unidirectional
    }

    /// Accepts the stream, with a SYN_REPLY of these headers.
    ///
    /// # Errors
    /// The peer has reset it meanwhile, the session is over, or the headers are too large (and the stream is refused).
    pub fn reply(mut self, headers: &Headers) -> Result<Stream, StreamError> {
        let Some(key) = &self.key else { return Err(StreamError::Cancelled) };
        key.shared.lock().reply(key.id, headers)?;
        let key = mem::take(&mut self.key).ok_or(StreamError::Cancelled)?;
        Ok(Stream { recv: RecvHalf::new(key.clone()), send: SendHalf::new(key) })
    }

    /// Resets the stream, without having done anything for it.
    pub fn refuse(mut self, status: ResetStatus) {
        self.reset(status);
    }

    fn reset(&mut self, status: ResetStatus) {
        if let Some(key) = self.key.take() {
            key.shared.lock().refuse(key.id, status);
        }
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        self.reset(ResetStatus::RefusedStream);
    }
}
