//! What the owners of streams do.

use std::task::{Context, Poll};

use bytes::Bytes;

use super::{
    state::{Control, Opening, State},
    stream_state::{End, SEND_QUEUE},
};
use crate::{
    error::StreamError,
    frame::{ResetStatus, StreamId},
    headers::Headers,
};

impl State {
    /// The next stream that the peer opened; none if there will be none.
    pub(crate) fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<Option<Opening>> {
        if let Some(opening) = self.arrivals.pop_front() {
            return Poll::Ready(Some(opening));
        }
        if self.over || self.peer_goes_away {
            return Poll::Ready(None);
        }
        self.acceptor = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Our side takes no more streams.
    pub(crate) fn stop_accepting(&mut self) {
        self.accepting = false;
        while let Some(opening) = self.arrivals.front() {
            self.refuse(opening.id, ResetStatus::RefusedStream);
        }
        self.signals.write.notify_one();
    }

    /// Resets a stream that was not replied to, and lets go of it.
    pub(crate) fn refuse(&mut self, id: StreamId, status: ResetStatus) {
        self.reset(id, status, StreamError::Cancelled);
        self.forget_arrival(id);
        self.release(id);
    }

    /// Sends SYN_REPLY, if the peer waits for one.
    pub(crate) fn reply(&mut self, id: StreamId, headers: &Headers) -> Result<(), StreamError> {
        let stream = self.streams.get(&id).ok_or(StreamError::SessionEnded)?;
        if let Some(error) = stream.broken {
            return Err(error);
        }
        let block = headers.to_block();
        if block.len() > self.config.max_header_block {
            return Err(StreamError::HeadersTooLarge(self.config.max_header_block));
        }
        if stream.output.end == End::Open {
            self.push_control(Control::SynReply { id, block });
        }
        Ok(())
    }

    /// Takes what has come; none after the last of it.
    pub(crate) fn poll_receive(
        &mut self,
        id: StreamId,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<Bytes>, StreamError>> {
        let Some(stream) = self.streams.get_mut(&id) else {
            return Poll::Ready(Err(StreamError::SessionEnded));
        };
        let input = &mut stream.input;
        if !input.buffer.is_empty() {
            let bytes = input.take();
            self.buffered -= bytes.len();
            self.consumed(id, bytes.len());
            self.wake_reader();
            return Poll::Ready(Ok(Some(bytes)));
        }
        if input.fin {
            return Poll::Ready(Ok(None));
        }
        if let Some(error) = stream.broken {
            return Poll::Ready(Err(error));
        }
        input.waker = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Drops the receiving half.
    pub(crate) fn drop_input(&mut self, id: StreamId) {
        self.release_input(id);
        self.settle(id);
    }

    /// Ready when the stream takes something to send.
    pub(crate) fn poll_room(&mut self, id: StreamId, cx: &mut Context<'_>) -> Poll<Result<(), StreamError>> {
        let Some(stream) = self.streams.get_mut(&id) else {
            return Poll::Ready(Err(StreamError::SessionEnded));
        };
        if let Some(error) = stream.broken {
            return Poll::Ready(Err(error));
        }
        if stream.output.end != End::Open {
            return Poll::Ready(Err(StreamError::Finished));
        }
        if stream.output.queued < SEND_QUEUE {
            return Poll::Ready(Ok(()));
        }
        stream.output.waker = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Queues something to send, after [`Self::poll_room`].
    pub(crate) fn send(&mut self, id: StreamId, bytes: Bytes) {
        if let Some(stream) = self.streams.get_mut(&id)
            && !bytes.is_empty()
        {
            stream.output.push(bytes);
            self.schedule(id);
        }
    }

    /// Queues the end of what is sent.
    pub(crate) fn finish(&mut self, id: StreamId) -> Result<(), StreamError> {
        let stream = self.streams.get_mut(&id).ok_or(StreamError::SessionEnded)?;
        if let Some(error) = stream.broken {
            return Err(error);
        }
        if stream.output.end == End::Open {
            stream.output.end = End::Queued;
            self.schedule(id);
        }
        Ok(())
    }

    /// Resets the stream.
    pub(crate) fn cancel(&mut self, id: StreamId, status: ResetStatus) {
        self.reset(id, status, StreamError::Cancelled);
    }

    /// Drops the sending half. What its owner did not finish is reset: the peer must not take it for whole.
    pub(crate) fn drop_output(&mut self, id: StreamId) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        stream.output.held = false;
        stream.output.waker = None;
        if stream.output.end == End::Open {
            self.reset(id, ResetStatus::Cancel, StreamError::Cancelled);
        }
        self.settle(id);
    }
}
