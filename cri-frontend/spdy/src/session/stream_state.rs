//! What a session keeps of one stream.

use std::{collections::VecDeque, task::Waker};

use bytes::{Buf, Bytes, BytesMut};

use super::window::{ReceiveWindow, SendWindow};
use crate::{
    error::StreamError,
    frame::{StreamId, data_frame_header},
};

/// Bytes that may wait to be sent on a stream before its owner has to.
pub(super) const SEND_QUEUE: usize = 64 << 10;
/// The largest data frame we send. It bounds how long the other streams wait for their turn.
const MAX_DATA: usize = 64 << 10;
/// The most that an owner gets at once, so that he holds little of what the window says he has consumed.
const MAX_TAKE: usize = 64 << 10;

/// A stream: both directions, each with the owner's handle on it.
#[derive(Debug)]
pub(super) struct StreamState {
    pub(super) input: Input,
    pub(super) output: Output,
    /// Why the stream ended in both directions before its time.
    pub(super) broken: Option<StreamError>,
}

impl StreamState {
    pub(super) fn new(receive: ReceiveWindow, send: SendWindow, fin: bool, unidirectional: bool) -> Self {
        let input = Input {
            buffer: BytesMut::new(),
            fin,
            held: true,
            window: receive,
            credit_queued: false,
            waker: None,
        };
        let output = Output {
            queue: VecDeque::new(),
            queued: 0,
            end: if unidirectional { End::Sent } else { End::Open },
            held: true,
            window: send,
            scheduled: false,
            waker: None,
        };
        Self { input, output, broken: None }
    }

    /// Ends both directions. What has come already can still be read; what was not sent is not sent any more.
    pub(super) fn fail(&mut self, error: StreamError) {
        if self.broken.is_none() {
            self.broken = Some(error);
        }
        self.output.queue.clear();
        self.output.queued = 0;
        self.wake();
    }

    pub(super) fn wake(&mut self) {
        for waker in [self.input.waker.take(), self.output.waker.take()].into_iter().flatten() {
            waker.wake();
        }
    }

    /// Whether neither its owner nor the wire has anything to do with it any more.
    pub(super) fn is_over(&self) -> bool {
        let sent = self.broken.is_some() || self.output.end == End::Sent;
        !self.input.held && !self.output.held && sent
    }
}

/// From the peer to the owner.
#[derive(Debug)]
pub(super) struct Input {
    /// What came and was not taken. Copied together, as a peer may send it in frames of one byte each, which would
    /// cost a hundred times their size if each were kept as it came.
    pub(super) buffer: BytesMut,
    /// Nothing comes after `buffer`.
    pub(super) fin: bool,
    /// The owner may still read. What comes afterwards is thrown away.
    pub(super) held: bool,
    pub(super) window: ReceiveWindow,
    /// The stream is in the queue for a WINDOW_UPDATE.
    pub(super) credit_queued: bool,
    pub(super) waker: Option<Waker>,
}

impl Input {
    pub(super) fn take(&mut self) -> Bytes {
        self.buffer.split_to(self.buffer.len().min(MAX_TAKE)).freeze()
    }

    pub(super) fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

/// How far the sending direction is from its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// The owner may send.
    Open,
    /// FIN follows what is queued.
    Queued,
    /// FIN was sent, or nothing was ever to be sent.
    Sent,
}

/// From the owner to the peer.
#[derive(Debug)]
pub(super) struct Output {
    queue: VecDeque<Bytes>,
    pub(super) queued: usize,
    pub(super) end: End,
    /// The owner still has his handle.
    pub(super) held: bool,
    pub(super) window: SendWindow,
    /// The stream is in the queue of those that have a data frame to send.
    pub(super) scheduled: bool,
    pub(super) waker: Option<Waker>,
}

impl Output {
    pub(super) fn push(&mut self, bytes: Bytes) {
        self.queued += bytes.len();
        self.queue.push_back(bytes);
    }

    /// Whether a frame could be sent, if windows allow `allowed` bytes.
    pub(super) fn has_frame(&self, allowed: usize) -> bool {
        if self.queued > 0 { allowed > 0 } else { self.end == End::Queued }
    }

    /// Appends a data frame to `out` of what is queued, of at most `allowed` bytes; with the FIN, if it is the last.
    /// Returns the length of its payload.
    pub(super) fn write_frame(&mut self, id: StreamId, allowed: usize, out: &mut BytesMut) -> usize {
        let length = self.queued.min(allowed).min(MAX_DATA);
        let fin = self.end == End::Queued && length == self.queued;
        if length == 0 && !fin {
            return 0;
        }
        data_frame_header(out, id, fin, length);
        let mut left = length;
        while let Some(bytes) = self.queue.front_mut().filter(|_| left > 0) {
            let part = left.min(bytes.len());
            out.extend_from_slice(&bytes[..part]);
            bytes.advance(part);
            left -= part;
            if bytes.is_empty() {
                self.queue.pop_front();
            }
        }
        self.queued -= length;
        self.window.sent(length);
        if fin {
            self.end = End::Sent;
        }
        if self.queued < SEND_QUEUE
            && let Some(waker) = self.waker.take()
        {
            waker.wake();
        }
        length
    }
}
