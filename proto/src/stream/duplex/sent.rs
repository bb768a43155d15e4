//! What was sent, and how much of it the peer has handed on.

use std::{
    collections::VecDeque,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use tokio::sync::watch;

use super::{AHEAD, MOST_SLOTS};
use crate::stream::{Placed, StreamError};

#[derive(Default)]
pub(super) struct Sent {
    bytes: AtomicU64,
    ended: AtomicBool,
    acknowledged: watch::Sender<u64>,
    /// What was put into the file, each part with the offset of its end.
    placed: Mutex<VecDeque<(u64, Placed)>>,
}

impl Sent {
    fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    fn placed(&self) -> MutexGuard<'_, VecDeque<(u64, Placed)>> {
        self.placed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// So many bytes go by a frame; none is the end.
    pub fn read(&self, count: usize) {
        self.bytes.fetch_add(count as u64, Ordering::Relaxed);
        self.ended.store(count == 0, Ordering::Relaxed);
    }

    /// Bytes go through the file. Their slot is kept until the peer has them.
    pub fn place(&self, placed: Placed) {
        let end = self.bytes.fetch_add(placed.len() as u64, Ordering::Relaxed) + placed.len() as u64;
        self.placed().push_back((end, placed));
    }

    /// Waits until more may be sent, and says how much by a frame.
    pub async fn room(&self) -> usize {
        let mut acknowledged = self.acknowledged.subscribe();
        // The sender of the watch is borrowed: it cannot go.
        let _ = acknowledged.wait_for(|acknowledged| self.room_beyond(*acknowledged) > 0).await;
        self.room_beyond(*acknowledged.borrow())
    }

    fn room_beyond(&self, acknowledged: u64) -> usize {
        let placed = self.placed();
        if placed.len() >= MOST_SLOTS {
            return 0;
        }
        let in_file = |(end, part): &(u64, Placed)| (part.len() as u64).min(end - acknowledged);
        let by_frames = self.bytes() - acknowledged - placed.iter().map(in_file).sum::<u64>();
        AHEAD.saturating_sub(by_frames as usize)
    }

    /// Whether all of it was read: nothing more will be sent.
    pub fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Relaxed)
    }

    /// Waits until the peer has all, the end included.
    pub async fn confirmed(&self) {
        let mut acknowledged = self.acknowledged.subscribe();
        // The sender of the watch is borrowed: it cannot go.
        let _ = acknowledged.wait_for(|acknowledged| *acknowledged > self.bytes()).await;
    }

    /// Takes the peer's word.
    pub fn acknowledge(&self, total: u64) -> Result<(), StreamError> {
        let most = self.bytes() + u64::from(self.has_ended());
        if total > most || total < *self.acknowledged.borrow() {
            return Err(StreamError::Protocol("acknowledged what was not sent"));
        }
        self.placed().retain(|(end, _)| *end > total);
        self.acknowledged.send_replace(total);
        Ok(())
    }
}
