//! What came from the peer and was not handed on yet.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
};

use tokio::sync::Notify;

use super::{AHEAD, MOST_SLOTS};
use crate::stream::{StreamError, bulk::Place};

const TOO_MUCH: StreamError = StreamError::Protocol("sent more than there is room for");

#[derive(Default)]
pub(super) struct Arrived {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Default)]
struct State {
    parts: VecDeque<Part>,
    ended: bool,
    /// Memory for the next bytes.
    spare: Vec<u8>,
}

pub(super) enum Part {
    Bytes(Vec<u8>),
    Placed(Place),
}

impl Part {
    fn in_memory(&self) -> usize {
        if let Self::Bytes(bytes) = self { bytes.len() } else { 0 }
    }
}

impl Arrived {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn push(&self, bytes: &[u8]) -> Result<(), StreamError> {
        let mut state = self.lock();
        if state.parts.iter().map(Part::in_memory).sum::<usize>() + bytes.len() > AHEAD {
            return Err(TOO_MUCH);
        }
        if let Some(Part::Bytes(last)) = state.parts.back_mut() {
            last.extend_from_slice(bytes);
        } else {
            let mut part = std::mem::take(&mut state.spare);
            part.extend_from_slice(bytes);
            state.parts.push_back(Part::Bytes(part));
        }
        drop(state);
        self.changed.notify_one();
        Ok(())
    }

    pub fn place(&self, place: Place) -> Result<(), StreamError> {
        let mut state = self.lock();
        if state.parts.iter().filter(|part| matches!(part, Part::Placed(_))).count() >= MOST_SLOTS {
            return Err(TOO_MUCH);
        }
        state.parts.push_back(Part::Placed(place));
        drop(state);
        self.changed.notify_one();
        Ok(())
    }

    pub fn end(&self) {
        self.lock().ended = true;
        self.changed.notify_one();
    }

    /// The next part; none at the end. `spent` is memory that is not needed any more.
    pub async fn next(&self, mut spent: Vec<u8>) -> Option<Part> {
        spent.clear();
        self.lock().spare = spent;
        loop {
            {
                let mut state = self.lock();
                if let Some(part) = state.parts.pop_front() {
                    return Some(part);
                }
                if state.ended {
                    return None;
                }
            }
            self.changed.notified().await;
        }
    }
}
