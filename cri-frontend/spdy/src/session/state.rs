//! All that is known of a session, shared by its driver and its streams' owners. No method waits.
//!
//! [`super::inbound`] has what the peer's frames do to it, [`super::outbound`] what is written from it,
//! [`super::ownership`] what the owners of streams do.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::Waker,
};

use tokio::{sync::Notify, time::Instant};

use super::{
    stream_state::StreamState,
    window::{INITIAL_WINDOW, Peer, ReceiveWindow, SendWindow},
};
use crate::{
    config::{Config, FlowControl},
    error::StreamError,
    frame::{ResetStatus, Setting, StreamId},
    headers::Headers,
};

/// A session's state with its lock.
#[derive(Debug)]
pub(crate) struct Shared {
    state: Mutex<State>,
    pub(crate) signals: Arc<Signals>,
}

impl Shared {
    pub(crate) fn new(config: &Config) -> Arc<Self> {
        let signals = Arc::new(Signals::default());
        Arc::new(Self { state: Mutex::new(State::new(config, signals.clone())), signals })
    }

    /// The state. Nobody panics while holding it; if somebody did, it would still be whole enough to close.
    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the driver's two loops wait for.
#[derive(Debug, Default)]
pub(crate) struct Signals {
    /// There may be something to write, or nothing any more.
    pub(crate) write: Notify,
    /// What the reading loop waited for may have come.
    pub(crate) read: Notify,
}

/// A stream that the peer opened.
#[derive(Debug)]
pub(crate) struct Opening {
    pub(crate) id: StreamId,
    pub(crate) headers: Headers,
    pub(crate) associated: Option<StreamId>,
    pub(crate) priority: u8,
    pub(crate) fin: bool,
    pub(crate) unidirectional: bool,
}

/// A frame to be written before all data.
#[derive(Debug)]
pub(super) enum Control {
    Settings(Vec<Setting>),
    WindowUpdate { id: Option<StreamId>, delta: u32 },
    SynReply { id: StreamId, block: Vec<u8> },
    RstStream { id: StreamId, status: ResetStatus },
    Pong(u32),
}

/// See the module.
#[derive(Debug)]
pub(crate) struct State {
    pub(super) config: Config,
    pub(super) signals: Arc<Signals>,
    pub(super) streams: HashMap<StreamId, StreamState>,
    /// Opened by the peer, and not yet taken by our side.
    pub(super) arrivals: VecDeque<Opening>,
    pub(super) acceptor: Option<Waker>,
    /// Our side still takes streams.
    pub(super) accepting: bool,
    /// The peer said GOAWAY: it opens no more streams.
    pub(super) peer_goes_away: bool,
    /// The driver is gone, or about to.
    pub(super) over: bool,
    /// The highest id the peer has used.
    pub(super) last_id: u32,
    pub(super) control: VecDeque<Control>,
    /// Streams that have a data frame to send, in turn.
    pub(super) ready: VecDeque<StreamId>,
    /// Streams whose window is to be reopened.
    pub(super) credits: VecDeque<StreamId>,
    pub(super) session_credit: bool,
    pub(super) peer: Peer,
    pub(super) send_window: SendWindow,
    /// The send window of a new stream.
    pub(super) initial_send_window: u32,
    pub(super) receive_window: ReceiveWindow,
    /// Bytes in all streams' buffers.
    pub(super) buffered: usize,
    pub(super) reader_waits: bool,
    pub(super) last_activity: Instant,
}

impl State {
    fn new(config: &Config, signals: Arc<Signals>) -> Self {
        let mut config = config.clone();
        config.stream_window = config.stream_window.clamp(INITIAL_WINDOW, i32::MAX as u32);
        config.session_window = config.session_window.clamp(INITIAL_WINDOW, i32::MAX as u32);
        let streams = u32::try_from(config.max_streams).unwrap_or(u32::MAX);
        let mut control = VecDeque::from([Control::Settings(vec![
            Setting { id: Setting::MAX_CONCURRENT_STREAMS, value: streams },
            Setting { id: Setting::INITIAL_WINDOW_SIZE, value: config.stream_window },
        ])]);
        let more = config.session_window - INITIAL_WINDOW;
        if more > 0 {
            control.push_back(Control::WindowUpdate { id: None, delta: more });
        }
        Self {
            signals,
            streams: HashMap::new(),
            arrivals: VecDeque::new(),
            acceptor: None,
            accepting: true,
            peer_goes_away: false,
            over: false,
            last_id: 0,
            control,
            ready: VecDeque::new(),
            credits: VecDeque::new(),
            session_credit: false,
            peer: match config.flow_control {
                FlowControl::Detect => Peer::Unknown,
                FlowControl::Required => Peer::Windows,
            },
            send_window: SendWindow::new(INITIAL_WINDOW),
            initial_send_window: INITIAL_WINDOW,
            receive_window: ReceiveWindow::new(config.session_window),
            buffered: 0,
            reader_waits: false,
            last_activity: Instant::now(),
            config,
        }
    }

    pub(crate) fn last_activity(&self) -> Instant {
        self.last_activity
    }

    pub(crate) fn touch(&mut self) {
        self.last_activity = Instant::now();
    }

    /// Ends everything: the driver stops.
    pub(crate) fn end(&mut self) {
        self.over = true;
        self.arrivals.clear();
        self.streams.values_mut().for_each(|stream| stream.fail(StreamError::SessionEnded));
        self.wake_acceptor();
    }

    pub(super) fn push_control(&mut self, control: Control) {
        self.control.push_back(control);
        self.signals.write.notify_one();
    }

    pub(super) fn wake_acceptor(&mut self) {
        if let Some(waker) = self.acceptor.take() {
            waker.wake();
        }
    }

    pub(super) fn wake_reader(&mut self) {
        if std::mem::take(&mut self.reader_waits) {
            self.signals.read.notify_one();
        }
    }

    /// Resets a stream from our side.
    pub(super) fn reset(&mut self, id: StreamId, status: ResetStatus, error: StreamError) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        if stream.broken.is_none() {
            stream.fail(error);
            self.push_control(Control::RstStream { id, status });
            self.wake_reader();
            self.forget_arrival(id);
        }
    }

    /// A stream that ended before our side took it has no owner to let go of it.
    pub(super) fn forget_arrival(&mut self, id: StreamId) {
        if let Some(index) = self.arrivals.iter().position(|opening| opening.id == id) {
            self.arrivals.remove(index);
            self.release(id);
        }
    }

    /// Takes both handles from a stream.
    pub(super) fn release(&mut self, id: StreamId) {
        self.release_input(id);
        if let Some(stream) = self.streams.get_mut(&id) {
            stream.output.held = false;
        }
        self.settle(id);
    }

    /// The owner reads no more.
    pub(super) fn release_input(&mut self, id: StreamId) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        stream.input.held = false;
        stream.input.waker = None;
        let unread = std::mem::take(&mut stream.input.buffer).len();
        self.buffered -= unread;
        self.consumed(id, unread);
        self.wake_reader();
    }

    /// Forgets a stream that is over.
    pub(super) fn settle(&mut self, id: StreamId) {
        let Some(stream) = self.streams.get(&id).filter(|stream| stream.is_over()) else { return };
        if stream.broken.is_none() && !stream.input.fin {
            // Our direction is done, and nobody reads the other one any more. Without this a peer that minds windows
            // would wait for ever to send the rest.
            self.push_control(Control::RstStream { id, status: ResetStatus::Cancel });
        }
        self.streams.remove(&id);
        self.signals.write.notify_one();
        self.wake_reader();
    }

    /// Counts bytes that are out of the buffers, and reopens windows when enough have come together.
    pub(super) fn consumed(&mut self, id: StreamId, bytes: usize) {
        if bytes == 0 || self.peer == Peer::NoWindows {
            return;
        }
        let mut due = false;
        if self.receive_window.consume(bytes) {
            self.session_credit = true;
            due = true;
        }
        if let Some(stream) = self.streams.get_mut(&id)
            && stream.input.window.consume(bytes)
            && !stream.input.fin
            && !std::mem::replace(&mut stream.input.credit_queued, true)
        {
            self.credits.push_back(id);
            due = true;
        }
        if due {
            self.signals.write.notify_one();
        }
    }

    /// Puts a stream among those that have a data frame to send, if it has one.
    pub(super) fn schedule(&mut self, id: StreamId) {
        let session = self.send_window;
        let peer = self.peer;
        let Some(stream) = self.streams.get_mut(&id) else { return };
        let output = &mut stream.output;
        let allowed = match peer {
            Peer::Windows => output.window.available().min(session.available()),
            Peer::Unknown | Peer::NoWindows => usize::MAX,
        };
        if stream.broken.is_none()
            && output.has_frame(allowed)
            && !std::mem::replace(&mut output.scheduled, true)
        {
            self.ready.push_back(id);
            self.signals.write.notify_one();
        }
    }
}
