//! What was sent and not acknowledged: it is sent again on the next connection.

use std::collections::VecDeque;

use super::{
    Kind, MAX_PAYLOAD, StreamError,
    bulk::{Place, Placed},
    frame::encode,
};

/// Parts of a stream, in order.
#[derive(Debug, Default)]
pub(super) struct Held {
    parts: VecDeque<Part>,
    /// The bytes of those that are in memory, in order.
    bytes: VecDeque<u8>,
    /// Offset in the stream of the first.
    base: u64,
}

#[derive(Debug)]
enum Part {
    /// So many of the bytes in memory.
    Bytes(usize),
    Placed(Placed),
}

impl Part {
    fn len(&self) -> usize {
        match self {
            Self::Bytes(count) => *count,
            Self::Placed(placed) => placed.place().len(),
        }
    }
}

impl Held {
    /// How many bytes are held in memory.
    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// How many slots of the file are held.
    pub fn slots(&self) -> usize {
        self.parts.iter().filter(|part| matches!(part, Part::Placed(_))).count()
    }

    pub fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend(bytes);
        match self.parts.back_mut() {
            Some(Part::Bytes(count)) => *count += bytes.len(),
            _ => self.parts.push_back(Part::Bytes(bytes.len())),
        }
    }

    pub fn push_placed(&mut self, placed: Placed) {
        self.parts.push_back(Part::Placed(placed));
    }

    /// The receiver has the stream up to there.
    pub fn acknowledge(&mut self, offset: u64) -> Result<(), StreamError> {
        const LIE: StreamError = StreamError::Protocol("acknowledged what was not sent");
        let count = offset.checked_sub(self.base).and_then(|count| usize::try_from(count).ok());
        let mut count = count.filter(|count| *count <= self.parts.iter().map(Part::len).sum()).ok_or(LIE)?;
        self.base = offset;
        while let Some(first) = self.parts.front_mut() {
            let gone = count.min(first.len());
            match first {
                Part::Bytes(bytes) => {
                    *bytes -= gone;
                    self.bytes.drain(..gone);
                }
                Part::Placed(placed) => placed.forget(gone),
            }
            if first.len() > 0 {
                break;
            }
            count -= gone;
            self.parts.pop_front();
        }
        Ok(())
    }

    /// The frames that a new connection begins with.
    pub fn replay(&mut self) -> Vec<u8> {
        let mut frames = Vec::new();
        let mut bytes = &*self.bytes.make_contiguous();
        for part in &self.parts {
            match part {
                Part::Bytes(count) => {
                    let (now, later) = bytes.split_at(*count);
                    bytes = later;
                    now.chunks(MAX_PAYLOAD).for_each(|chunk| frames.extend(encode(Kind::Data, chunk)));
                }
                Part::Placed(placed) => frames.extend(placed_frame(placed.place())),
            }
        }
        frames
    }
}

/// The frame that says where bytes are.
pub(super) fn placed_frame(place: &Place) -> Vec<u8> {
    encode(Kind::Placed, &place.encode())
}
