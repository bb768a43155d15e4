//! Many bytes at once: the guest puts them into a file that it shares with the host, and says where.
//!
//! vsock takes 28 KiB a packet, each with an exit to the VMM and a copy; a file of the virtio-fs share takes
//! [`SLOT_BYTES`] by one request. There is one file a pod. The guest alone decides what lies where in it; the host reads
//! what it is told to, within the file, and nothing else of it matters.

use std::{
    fs::File,
    ops::Range,
    os::unix::fs::FileExt,
    sync::{Arc, Mutex, PoisonError},
};

use super::{FrameError, StreamError};

/// What is put into the file at once, at most.
pub const SLOT_BYTES: usize = 1 << 20;
/// Places for that.
const SLOTS: usize = 8;
/// The file's length, and what it takes of the host's memory at most.
pub const BULK_BYTES: usize = SLOTS * SLOT_BYTES;

/// Slots that a stream may hold: one is read by the receiver while the next is filled.
pub(super) const MOST_SLOTS: usize = 2;
/// What a receiver reads from the file at once.
pub(super) const PIECE: usize = 256 * 1024;
pub(super) const NO_FILE: StreamError = StreamError::Protocol("there is no file to put bytes into");

/// A range of the file, never an empty one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place(Range<usize>);

impl Place {
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// The payload of a PLACED frame.
    pub fn encode(&self) -> [u8; 8] {
        let [a, b, c, d] = (self.0.start as u32).to_be_bytes();
        let [e, f, g, h] = (self.0.len() as u32).to_be_bytes();
        [a, b, c, d, e, f, g, h]
    }

    pub fn parse(payload: &[u8]) -> Result<Self, FrameError> {
        let &[a, b, c, d, e, f, g, h] = payload else {
            return Err(FrameError::Malformed("a place has 8 bytes"));
        };
        let start = u32::from_be_bytes([a, b, c, d]) as usize;
        let length = u32::from_be_bytes([e, f, g, h]) as usize;
        if !(1..=SLOT_BYTES).contains(&length) || start > BULK_BYTES - length {
            return Err(FrameError::Malformed("no place in the file"));
        }
        Ok(Self(start..start + length))
    }

    /// The place in pieces of so many bytes.
    pub fn pieces(self, size: usize) -> impl Iterator<Item = Range<usize>> {
        let Range { start, end } = self.0;
        (start..end).step_by(size).map(move |start| start..end.min(start + size))
    }
}

/// The receiver's end of the file.
#[derive(Debug, Clone)]
pub struct BulkFile(Arc<File>);

impl BulkFile {
    /// A file that lies in memory (tmpfs): it is read without a thread of its own.
    pub fn new(file: File) -> Self {
        Self(Arc::new(file))
    }

    /// By a system call and not through mapped memory, which the guest could cut away below.
    pub(super) fn read(&self, piece: &Range<usize>, into: &mut [u8]) -> Result<(), StreamError> {
        let read = self.0.read_exact_at(into, piece.start as u64);
        read.map_err(|_| StreamError::Protocol("what was placed is not there"))
    }
}

/// The sender's side: the slots of the file that hold nothing.
#[derive(Debug, Clone)]
pub struct Slots(Arc<Mutex<Vec<usize>>>);

impl Default for Slots {
    fn default() -> Self {
        Self(Arc::new(Mutex::new((0..SLOTS).rev().collect())))
    }
}

impl Slots {
    /// One of them, if there is one. The one used last comes first: what was never used takes no memory.
    pub fn take(&self) -> Option<Slot> {
        let number = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop()?;
        Some(Slot { number, home: self.clone() })
    }
}

/// A slot that is used by nobody else.
#[derive(Debug)]
pub struct Slot {
    number: usize,
    home: Slots,
}

impl Slot {
    /// Where it begins in the file.
    pub fn start(&self) -> u64 {
        (self.number * SLOT_BYTES) as u64
    }

    /// So many bytes have been put there; none where they are too many or too few.
    pub fn hold(self, count: usize) -> Option<Placed> {
        let start = self.number * SLOT_BYTES;
        (1..=SLOT_BYTES).contains(&count).then(|| Placed { place: Place(start..start + count), _slot: self })
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.home.0.lock().unwrap_or_else(PoisonError::into_inner).push(self.number);
    }
}

/// Bytes of a stream in a slot, which they keep.
#[derive(Debug)]
pub struct Placed {
    place: Place,
    _slot: Slot,
}

impl Placed {
    pub(super) fn place(&self) -> &Place {
        &self.place
    }

    /// How many they are.
    #[expect(clippy::len_without_is_empty, reason = "they are never none")]
    pub fn len(&self) -> usize {
        self.place.len()
    }

    /// Where in the file they begin.
    pub fn start(&self) -> usize {
        self.place.0.start
    }

    /// The receiver has the first so many of them.
    pub(super) fn forget(&mut self, count: usize) {
        self.place.0.start += count;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_has_one_holder_and_comes_back() {
        let slots = Slots::default();
        let mut held: Vec<_> = (0..SLOTS).map(|_| slots.take().unwrap()).collect();
        assert_eq!(held.iter().map(Slot::start).collect::<std::collections::BTreeSet<_>>().len(), SLOTS);
        assert!(slots.take().is_none());
        let placed = held.pop().unwrap().hold(SLOT_BYTES).unwrap();
        assert!(slots.take().is_none(), "its bytes keep it");
        drop(placed);
        let again = slots.take().unwrap();
        assert!(again.hold(0).is_none() && slots.take().is_some());
    }

    #[test]
    fn only_places_within_the_file_are_places() {
        let last = Place(BULK_BYTES - SLOT_BYTES..BULK_BYTES);
        assert_eq!(Place::parse(&last.encode()).unwrap(), last);
        let beyond = Place(BULK_BYTES - SLOT_BYTES + 1..BULK_BYTES + 1);
        let long = Place(0..SLOT_BYTES + 1);
        for bad in [&beyond.encode()[..], &long.encode(), &[0; 8], &[0xff; 8], &[0; 7], &[]] {
            assert!(Place::parse(bad).is_err(), "{bad:?}");
        }
        let pieces: Vec<_> = Place(10..35).pieces(10).collect();
        assert_eq!(pieces, [10..20, 20..30, 30..35]);
    }
}
