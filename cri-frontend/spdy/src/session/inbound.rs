//! What the peer's frames do.

use bytes::{Buf, Bytes};

use super::{
    state::{Control, Opening, State},
    stream_state::StreamState,
    window::{Peer, ReceiveWindow, SendWindow},
};
use crate::{
    error::{SessionError, StreamError},
    frame::{ResetStatus, Setting, StreamId},
    headers::{BlockError, Headers},
};

/// Control frames that may wait to be written. A peer that has more to be answered has to read first.
const MAX_CONTROL: usize = 64;

impl State {
    /// Whether answers can be queued. As long as not, nothing is read.
    pub(super) fn takes_frames(&self) -> bool {
        self.control.len() < MAX_CONTROL
    }

    /// A frame that nobody answers and that changes nothing, while reading is paused: a peer that is gone makes the
    /// writing of it fail, where its end could not be read behind the data that waits to be. A PING would have an
    /// answer, which a peer that waits for us to read cannot send.
    pub(super) fn probe(&mut self) {
        if self.control.is_empty() {
            self.push_control(Control::Settings(Vec::new()));
        }
    }

    /// SYN_STREAM.
    pub(super) fn on_open(
        &mut self,
        id: StreamId,
        opening: Result<Opening, BlockError>,
    ) -> Result<(), SessionError> {
        if !id.is_clients() {
            return Err(SessionError::StreamParity(id));
        }
        if id.get() <= self.last_id {
            return Err(SessionError::StreamOrder { id, last: self.last_id });
        }
        self.last_id = id.get();
        let refused = !self.accepting || self.peer_goes_away || self.streams.len() >= self.config.max_streams;
        match opening {
            Err(_) => self.push_control(Control::RstStream { id, status: ResetStatus::ProtocolError }),
            Ok(_) if refused => {
                self.push_control(Control::RstStream { id, status: ResetStatus::RefusedStream });
            }
            Ok(opening) => {
                let receive = ReceiveWindow::new(self.config.stream_window);
                let send = SendWindow::new(self.initial_send_window);
                let stream = StreamState::new(receive, send, opening.fin, opening.unidirectional);
                self.streams.insert(id, stream);
                self.arrivals.push_back(opening);
                self.touch();
                self.wake_acceptor();
            }
        }
        Ok(())
    }

    /// SYN_REPLY: to nothing, as we open no streams.
    pub(super) fn on_reply(&mut self, id: StreamId) {
        self.push_control(Control::RstStream { id, status: ResetStatus::InvalidStream });
    }

    /// HEADERS: a stream's owner wants those of its opening only; of later ones their end counts.
    pub(super) fn on_headers(&mut self, id: StreamId, fin: bool, headers: &Result<Headers, BlockError>) {
        if self.open_stream(id).is_none() {
            return;
        }
        match headers {
            Ok(_) if fin => self.on_fin(id),
            Ok(_) => {}
            Err(_) => self.violated(id, ResetStatus::ProtocolError),
        }
    }

    /// RST_STREAM.
    pub(super) fn on_reset(&mut self, id: StreamId, status: ResetStatus) {
        if let Some(stream) = self.streams.get_mut(&id) {
            stream.fail(StreamError::Reset(status));
            self.forget_arrival(id);
            self.settle(id);
        }
    }

    /// PING: ours have even ids, and we send none.
    pub(super) fn on_ping(&mut self, id: u32) {
        if id % 2 == 1 {
            self.push_control(Control::Pong(id));
        }
    }

    /// GOAWAY.
    pub(super) fn on_go_away(&mut self) {
        self.peer_goes_away = true;
        self.wake_acceptor();
        self.signals.write.notify_one();
    }

    /// SETTINGS. We open no streams, so that their number does not matter; the other ids are statistics.
    pub(super) fn on_settings(&mut self, settings: &[Setting]) -> Result<(), SessionError> {
        // Of one id only the first counts (section 2.6.4).
        if let Some(setting) = settings.iter().find(|setting| setting.id == Setting::INITIAL_WINDOW_SIZE) {
            let size = i32::try_from(setting.value).map_err(|_| SessionError::WindowInvalid)?;
            let delta = i64::from(size) - i64::from(self.initial_send_window);
            self.initial_send_window = setting.value;
            let mut windows = self.streams.values_mut().map(|stream| &mut stream.output.window);
            if !windows.all(|window| window.shift(delta)) {
                return Err(SessionError::WindowInvalid);
            }
            self.speaks_of_windows();
            self.schedule_all();
        }
        Ok(())
    }

    /// WINDOW_UPDATE.
    pub(super) fn on_window_update(&mut self, id: Option<StreamId>, delta: u32) -> Result<(), SessionError> {
        self.speaks_of_windows();
        let Some(id) = id else {
            let was_closed = self.send_window.available() == 0;
            if delta == 0 || !self.send_window.shift(delta.into()) {
                return Err(SessionError::WindowInvalid);
            }
            if was_closed {
                self.schedule_all();
            }
            return Ok(());
        };
        let Some(stream) = self.streams.get_mut(&id) else { return Ok(()) };
        if delta == 0 {
            self.violated(id, ResetStatus::ProtocolError);
        } else if !stream.output.window.shift(delta.into()) {
            self.violated(id, ResetStatus::FlowControlError);
        } else {
            self.schedule(id);
        }
        Ok(())
    }

    /// The windows' part of a piece of DATA. True if it is to be kept, with [`Self::keep`].
    pub(super) fn on_data(&mut self, id: StreamId, bytes: usize) -> Result<bool, SessionError> {
        self.touch();
        let known = self.open_stream(id).is_some();
        if !self.receive_window.receive(bytes) && self.exceeded() {
            return Err(SessionError::WindowExceeded);
        }
        let within = self.streams.get_mut(&id).is_none_or(|stream| stream.input.window.receive(bytes));
        let keep = known && (within || !self.exceeded());
        if !keep {
            if known {
                self.violated(id, ResetStatus::FlowControlError);
            }
            self.consumed(id, bytes);
        }
        Ok(keep)
    }

    /// Moves what there is room for from `bytes` to the stream's buffer; true if nothing is left to move. Nobody wants
    /// what comes for a stream without a reader: it is thrown away.
    pub(super) fn keep(&mut self, id: StreamId, bytes: &mut Bytes) -> bool {
        let room = (self.config.session_window as usize).saturating_sub(self.buffered);
        let limit = self.config.stream_window as usize;
        match self.streams.get_mut(&id).filter(|stream| stream.input.held && stream.broken.is_none()) {
            None => {
                self.consumed(id, bytes.len());
                bytes.clear();
            }
            Some(stream) => {
                let input = &mut stream.input;
                let part = limit.saturating_sub(input.buffer.len()).min(room).min(bytes.len());
                input.buffer.extend_from_slice(&bytes[..part]);
                bytes.advance(part);
                self.buffered += part;
                if part > 0 {
                    input.wake();
                }
            }
        }
        bytes.is_empty()
    }

    /// The peer sends nothing more on the stream.
    pub(super) fn on_fin(&mut self, id: StreamId) {
        if let Some(stream) = self.streams.get_mut(&id) {
            stream.input.fin = true;
            stream.input.wake();
            self.settle(id);
        }
    }

    /// The stream that a frame is for, if it may still come. One that was there once may have been on its way when we
    /// ended it; one that never was is an error of the peer's, and so is one that the peer ended.
    fn open_stream(&mut self, id: StreamId) -> Option<&mut StreamState> {
        match self.streams.get(&id) {
            Some(stream) if stream.broken.is_some() => return None,
            Some(stream) if stream.input.fin => {
                self.violated(id, ResetStatus::StreamAlreadyClosed);
                return None;
            }
            Some(_) => {}
            None => {
                if !id.is_clients() || id.get() > self.last_id {
                    self.push_control(Control::RstStream { id, status: ResetStatus::InvalidStream });
                }
                return None;
            }
        }
        self.streams.get_mut(&id)
    }

    fn violated(&mut self, id: StreamId, status: ResetStatus) {
        self.reset(id, status, StreamError::Violated(status));
        self.settle(id);
    }

    /// The peer sent beyond a window; true if that is an error.
    fn exceeded(&mut self) -> bool {
        if self.peer == Peer::Unknown {
            self.peer = Peer::NoWindows;
            self.credits.clear();
            self.session_credit = false;
        }
        self.peer == Peer::Windows
    }

    fn speaks_of_windows(&mut self) {
        if self.peer == Peer::Unknown {
            self.peer = Peer::Windows;
        }
    }

    /// After windows opened that all streams may have waited for.
    fn schedule_all(&mut self) {
        let waiting = self.streams.iter().filter(|(_, stream)| stream.output.queued > 0);
        let ids: Vec<StreamId> = waiting.map(|(id, _)| *id).collect();
        ids.into_iter().for_each(|id| self.schedule(id));
    }
}
