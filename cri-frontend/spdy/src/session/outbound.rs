//! What is written to the peer, and in which order: answers and resets, then windows, then data in turns.

use bytes::{Bytes, BytesMut};

use super::{
    state::{Control, State},
    window::Peer,
};
use crate::{
    frame::{Frame, GoAwayStatus},
    headers::{CompressionError, Compressor},
};

/// Bytes after which no further frame is put together, so that the next answer does not wait for more data than
/// this and one frame.
const BATCH: usize = 64 << 10;

/// What there is to write.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Filled {
    /// What `out` now has; with or without data frames.
    Frames { data: bool },
    /// Nothing, until [`Signals::write`](super::state::Signals::write).
    Nothing,
    /// Nothing, for good: nobody takes streams any more, and the last one is over.
    Finished,
}

impl State {
    /// Appends the next frames to `out`, which is empty.
    pub(super) fn fill(
        &mut self,
        out: &mut BytesMut,
        compressor: &mut Compressor,
    ) -> Result<Filled, CompressionError> {
        while let Some(control) = self.control.pop_front() {
            control.into_frame(compressor)?.write_to(out);
        }
        self.wake_reader();
        self.fill_credits(out);
        let before = out.len();
        self.fill_data(out);
        Ok(match out.is_empty() {
            false => Filled::Frames { data: out.len() > before },
            true if self.is_finished() => Filled::Finished,
            true => Filled::Nothing,
        })
    }

    fn fill_credits(&mut self, out: &mut BytesMut) {
        if std::mem::take(&mut self.session_credit) {
            Frame::WindowUpdate { id: None, delta: self.receive_window.grant() }.write_to(out);
        }
        while let Some(id) = self.credits.pop_front() {
            let Some(stream) = self.streams.get_mut(&id) else { continue };
            stream.input.credit_queued = false;
            if stream.broken.is_none() && !stream.input.fin {
                Frame::WindowUpdate { id: Some(id), delta: stream.input.window.grant() }.write_to(out);
            }
        }
    }

    fn fill_data(&mut self, out: &mut BytesMut) {
        let full = out.len() + BATCH;
        while out.len() < full {
            let Some(id) = self.ready.pop_front() else { return };
            let Some(stream) = self.streams.get_mut(&id) else { continue };
            let output = &mut stream.output;
            output.scheduled = false;
            let allowed = match self.peer {
                Peer::Windows => output.window.available().min(self.send_window.available()),
                Peer::Unknown | Peer::NoWindows => usize::MAX,
            };
            let sent = output.write_frame(id, allowed, out);
            self.send_window.sent(sent);
            self.schedule(id);
            self.settle(id);
        }
    }

    fn is_finished(&self) -> bool {
        let no_more = !self.accepting || self.peer_goes_away;
        no_more && self.streams.is_empty() && self.control.is_empty()
    }

    /// The last frame of a session.
    pub(super) fn go_away(&self, status: GoAwayStatus) -> Frame {
        Frame::GoAway { last_good: self.last_id, status }
    }
}

impl Control {
    fn into_frame(self, compressor: &mut Compressor) -> Result<Frame, CompressionError> {
        Ok(match self {
            Self::Settings(settings) => Frame::Settings(settings),
            Self::WindowUpdate { id, delta } => Frame::WindowUpdate { id, delta },
            Self::SynReply { id, block } => {
                Frame::SynReply { id, fin: false, block: Bytes::from(compressor.compress(&block)?) }
            }
            Self::RstStream { id, status } => Frame::RstStream { id, status },
            Self::Pong(id) => Frame::Ping(id),
        })
    }
}
