//! One standard stream of one process over one connection that may break and be dialled again.
//!
//! ```text
//! host ── OPEN StreamOpen ──▶ guest           (offset: what the host already has of an output)
//! host ◀── OPENED u64 ─────── guest           (what the guest already has of an input), or ERROR text
//!
//! sender ── DATA bytes ─────▶ receiver        at most WINDOW bytes beyond the last ACK
//! sender ── PLACED u32 u32 ─▶ receiver        the next bytes are in a file of both: where, and how many
//! sender ◀── ACK u64 ──────── receiver        bytes handed on so far, in all, each ACK_EVERY bytes and each PLACED
//! sender ── END ────────────▶ receiver        end of the stream: a vsock backend has no half-close
//! sender ◀── END ──────────── receiver        the end was handed on as well; both close
//! ```
//!
//! The sender keeps what is not acknowledged and sends it again on the next connection, so no byte is lost or
//! doubled. The end of a stream is a frame, never the end of a connection.

mod bulk;
mod duplex;
mod frame;
mod held;
mod receiver;
mod sender;

pub use bulk::{BULK_BYTES, BulkFile, Placed, SLOT_BYTES, Slot, Slots};
pub use duplex::carry;
pub use frame::{FrameError, FrameReader, Kind, MAX_PACKET, MAX_PAYLOAD, parse_offset, write_frame};
pub use receiver::Receiver;
pub use sender::{Sender, Source, Taken};

/// How many bytes a sender may be ahead of the receiver's acknowledgement.
pub const WINDOW: usize = 256 * 1024;

/// How many bytes a receiver hands on before it says so. A sender whose window is full learns of it in time, and each
/// acknowledgement costs the guest an interrupt.
const ACK_EVERY: u64 = 64 * 1024;
const _: () = assert!(2 * ACK_EVERY as usize <= WINDOW / 2);

/// How a connection's turn at a stream ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// The stream's end was handed on; nothing is left to do.
    Finished,
    /// The connection broke first: dial again and go on.
    Disconnected,
}

/// What ends a stream for good.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    /// The peer broke the protocol.
    #[error("stream protocol violated by the peer: {0}")]
    Protocol(&'static str),
    /// The connection with the peer broke.
    #[error("the connection broke: {0}")]
    Connection(#[source] std::io::Error),
    /// The local end (a pipe, a log) failed.
    #[error("local end of the stream failed: {0}")]
    Local(#[source] std::io::Error),
}

impl From<FrameError> for StreamError {
    fn from(error: FrameError) -> Self {
        match error {
            FrameError::Malformed(what) => Self::Protocol(what),
            FrameError::Connection(error) => Self::Connection(error),
        }
    }
}

#[cfg(test)]
mod testing {
    use std::{fs::File, io, os::unix::fs::FileExt};

    use super::*;

    /// A source that puts every second part into a file.
    pub struct Alternating {
        rest: Vec<u8>,
        much: bool,
        file: File,
        slots: Slots,
    }

    impl Alternating {
        pub fn new(bytes: Vec<u8>, file: File) -> Self {
            Self { rest: bytes, much: false, file, slots: Slots::default() }
        }

        pub fn slots_are_free(&self) -> bool {
            let free: Vec<_> = std::iter::from_fn(|| self.slots.take()).collect();
            free.len() * SLOT_BYTES == BULK_BYTES
        }
    }

    impl Source for Alternating {
        async fn take(&mut self, buffer: &mut [u8]) -> io::Result<Taken> {
            self.much = !self.much;
            if let Some(slot) = self.slots.take().filter(|_| self.much && !self.rest.is_empty()) {
                let count = self.rest.len().min(SLOT_BYTES - 1);
                self.file.write_all_at(&self.rest[..count], slot.start())?;
                self.rest.drain(..count);
                return Ok(Taken::Placed(slot.hold(count).unwrap()));
            }
            let count = self.rest.len().min(buffer.len());
            buffer[..count].copy_from_slice(&self.rest[..count]);
            self.rest.drain(..count);
            Ok(Taken::Read(count))
        }
    }

    /// The two ends of a file.
    pub fn bulk_file() -> (File, BulkFile) {
        let file = tempfile::tempfile().unwrap();
        (file.try_clone().unwrap(), BulkFile::new(file))
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex, split};

    use super::{
        testing::{Alternating, bulk_file},
        *,
    };

    /// Bytes come through whole and in order although the connection breaks again and again.
    #[tokio::test]
    async fn a_stream_survives_broken_connections() {
        let (mut source, mut feed) = duplex(8 * 1024);
        let data: Vec<u8> = (0..3_000_000u32).map(|n| (n % 251) as u8).collect();
        let sent = data.clone();
        let feeder = tokio::spawn(async move {
            feed.write_all(&sent).await.unwrap();
        });
        survives(&data, &mut source, Receiver::default()).await;
        feeder.await.unwrap();
    }

    #[tokio::test]
    async fn much_goes_through_a_file_and_survives_broken_connections_too() {
        let (file, bulk) = bulk_file();
        let data: Vec<u8> = (0..12_000_000u32).map(|n| (n % 251) as u8).collect();
        let mut source = Alternating::new(data.clone(), file);
        survives(&data, &mut source, Receiver::with(bulk)).await;
        assert!(source.slots_are_free());
    }

    #[tokio::test]
    async fn a_place_that_is_none_is_refused() {
        let good = [0, 0, 0, 0, 0, 0, 0, 9];
        let beyond = [0, 0x80, 0, 0, 0, 0, 0, 9];
        let (truncated, short) = bulk_file();
        truncated.set_len(8).unwrap();
        for (mut receiver, place) in [
            (Receiver::with(bulk_file().1), beyond.as_slice()),
            (Receiver::with(bulk_file().1), &[0; 8]),
            (Receiver::with(bulk_file().1), &[0; 7]),
            (Receiver::with(short), &good),
            (Receiver::default(), &good),
        ] {
            let (near, mut far) = duplex(4096);
            let (read, mut write) = split(near);
            write_frame(&mut far, Kind::Placed, place).await.unwrap();
            let outcome = receiver.run(&mut FrameReader::new(read), &mut write, &mut tokio::io::sink()).await;
            assert!(matches!(outcome, Err(StreamError::Protocol(_))), "{place:?}: {outcome:?}");
        }
    }

    async fn survives(data: &[u8], source: &mut impl Source, mut receiver: Receiver) {
        let (mut sink, mut drain) = duplex(8 * 1024);
        let drainer = tokio::spawn(async move {
            let mut got = Vec::new();
            drain.read_to_end(&mut got).await.unwrap();
            got
        });
        let mut sender = Sender::default();
        for turn in 0.. {
            let (near, far) = duplex(4096);
            let (near_read, mut near_write) = split(near);
            let (far_read, mut far_write) = split(far);
            // The first connections break after some bytes; each next one lives longer.
            let limit = 10 << turn;
            let resume = receiver.received();
            let sending = async {
                let mut from_peer = FrameReader::new(near_read);
                let turn = sender.run(source, &mut from_peer, &mut near_write, resume).await;
                near_write.shutdown().await.unwrap();
                turn
            };
            let receiving = async {
                let mut from_peer = FrameReader::new(far_read.take(limit));
                let turn = receiver.run(&mut from_peer, &mut far_write, &mut sink).await;
                far_write.shutdown().await.unwrap();
                turn
            };
            let (sent, received) = tokio::join!(sending, receiving);
            if received.unwrap() == Turn::Finished {
                assert_eq!(sent.unwrap(), Turn::Finished);
                break;
            }
            assert_eq!(sent.unwrap(), Turn::Disconnected);
        }
        drop(sink);
        assert!(drainer.await.unwrap() == data, "bytes were lost, doubled or reordered");
    }

    #[tokio::test]
    async fn a_lying_peer_is_refused() {
        let (near, far) = duplex(4096);
        let (read, mut write) = split(near);
        let (_far_read, mut far_write) = split(far);
        // An acknowledgement of bytes that were never sent.
        write_frame(&mut far_write, Kind::Ack, &9u64.to_be_bytes()).await.unwrap();
        let (mut source, _feed) = duplex(16);
        let outcome = Sender::default().run(&mut source, &mut FrameReader::new(read), &mut write, 0).await;
        assert!(matches!(outcome, Err(StreamError::Protocol(_))), "{outcome:?}");
    }
}
