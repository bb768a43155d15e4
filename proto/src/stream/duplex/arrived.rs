//! What came from the peer and was not handed on yet.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
};

use tokio::sync::Notify;

use super::{AHEAD, MOST_SLOTS};
use crate::stream::{StreamError, bulk::Place};

const TOO_MUCH: StreamError = StreamError::Protocol("sent more than there is room for");
const AFTER_ITS_END: StreamError = StreamError::Protocol("sent something after the end");

#[derive(Default)]
pub(super) struct Arrived {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Default)]
struct State {
    parts: VecDeque<Part>,
    /// Parts in the file that were not fetched yet.
    in_file: usize,
    ended: bool,
    handed_on: bool,
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
        if state.ended {
            return Err(AFTER_ITS_END);
        }
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
        if state.ended {
            return Err(AFTER_ITS_END);
        }
        if state.in_file >= MOST_SLOTS {
            return Err(TOO_MUCH);
        }
        state.in_file += 1;
        state.parts.push_back(Part::Placed(place));
        drop(state);
        self.changed.notify_one();
        Ok(())
    }

    pub fn end(&self) -> Result<(), StreamError> {
        if std::mem::replace(&mut self.lock().ended, true) {
            return Err(AFTER_ITS_END);
        }
        self.changed.notify_one();
        Ok(())
    }

    /// A part was fetched from the file.
    pub fn fetched(&self) {
        self.lock().in_file -= 1;
    }

    /// All of it was handed on, and its end.
    pub fn handed_on(&self) {
        self.lock().handed_on = true;
    }

    /// Whether it was.
    pub fn is_handed_on(&self) -> bool {
        self.lock().handed_on
    }

    /// Whether all of it is here. What lies in the file is not, once the sender has gone.
    pub fn is_whole(&self) -> bool {
        let state = self.lock();
        state.ended && state.in_file == 0
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
