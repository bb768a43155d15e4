//! What one client has yet to read of an output, and how long it is waited for.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::{Bytes, BytesMut};
use tokio::{
    sync::Notify,
    time::{Instant, timeout_at},
};

use super::patience::Patience;

/// How far a client may fall behind.
pub(super) const BACKLOG_BYTES: usize = 4 << 20;
/// What comes between two flushes, at most. A client who has no room for that is waited for, as long as it has patience
/// left: a process may write faster than any client takes it, for a moment.
pub(super) const AT_ONCE: usize = 256 * 1024;
/// What a client takes at once, at most.
pub(super) const PIECE: usize = 1 << 20;

/// What one client has yet to read of an output.
#[derive(Debug, Default)]
pub struct Backlog {
    state: Mutex<BacklogState>,
    changed: Notify,
    taken: Notify,
}

#[derive(Debug, Default)]
struct BacklogState {
    bytes: BytesMut,
    ended: bool,
    cut_off: bool,
    left: bool,
    patience: Patience,
}

impl BacklogState {
    /// He gets what he has yet to read, and then the end: a hole in the middle would go unnoticed.
    fn cut_off(&mut self) {
        self.cut_off = true;
        self.ended = true;
    }
}

impl Backlog {
    fn lock(&self) -> MutexGuard<'_, BacklogState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds bytes; says whether the client still listens.
    pub(super) fn offer(&self, bytes: &[u8]) -> bool {
        let mut state = self.lock();
        if state.left || state.ended {
            return false;
        }
        let fits = state.bytes.len() + bytes.len() <= BACKLOG_BYTES;
        if fits {
            state.bytes.extend_from_slice(bytes);
        } else {
            state.cut_off();
        }
        drop(state);
        self.changed.notify_one();
        fits
    }

    pub(super) fn is_full(&self) -> bool {
        let state = self.lock();
        !state.left && !state.ended && state.bytes.len() > BACKLOG_BYTES - AT_ONCE
    }

    /// Waits until the client has room. It is cut off when its patience is spent, or at the time given.
    pub(super) async fn catch_up(self: Arc<Self>, last: Option<Instant>) {
        let begun = Instant::now();
        let until = begun + self.lock().patience.left();
        let room = async {
            while self.is_full() {
                self.taken.notified().await;
            }
        };
        let caught_up = timeout_at(last.map_or(until, |last| until.min(last)), room).await;
        let mut state = self.lock();
        state.patience.spend(begun.elapsed());
        if caught_up.is_err() {
            state.cut_off();
            self.changed.notify_one();
        }
    }

    pub(super) fn end(&self) {
        self.lock().ended = true;
        self.changed.notify_one();
    }

    /// Whether its end came before that of the output.
    pub fn is_cut_off(&self) -> bool {
        self.lock().cut_off
    }

    /// The client wants no more.
    pub fn leave(&self) {
        let mut state = self.lock();
        state.left = true;
        state.bytes = BytesMut::new();
        drop(state);
        self.taken.notify_one();
    }

    /// What has come since; none at the end. Cancel-safe.
    pub async fn next(&self) -> Option<Bytes> {
        loop {
            {
                let mut state = self.lock();
                if !state.bytes.is_empty() {
                    self.taken.notify_one();
                    let count = state.bytes.len().min(PIECE);
                    return Some(state.bytes.split_to(count).freeze());
                }
                if state.ended {
                    return None;
                }
            }
            self.changed.notified().await;
        }
    }
}
