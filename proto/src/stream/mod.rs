//! One standard stream of one process over one connection that may break and be dialled again.
//!
//! ```text
//! host ── OPEN StreamOpen ──▶ guest           (offset: what the host already has of an output)
//! host ◀── OPENED u64 ─────── guest           (what the guest already has of an input), or ERROR text
//!
//! sender ── DATA bytes ─────▶ receiver        at most WINDOW bytes beyond the last ACK
//! sender ◀── ACK u64 ──────── receiver        bytes handed on so far, in all, each ACK_EVERY bytes
//! sender ── END ────────────▶ receiver        end of the stream: a vsock backend has no half-close
//! sender ◀── END ──────────── receiver        the end was handed on as well; both close
//! ```
//!
//! The sender keeps what is not acknowledged and sends it again on the next connection, so no byte is lost or
//! doubled. The end of a stream is a frame, never the end of a connection.

mod duplex;
mod frame;
mod receiver;
mod sender;

pub use duplex::carry;
pub use frame::{FrameError, FrameReader, Kind, MAX_PACKET, MAX_PAYLOAD, parse_offset, write_frame};
pub use receiver::Receiver;
pub use sender::Sender;

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
    /// The local end (a pipe, a log) failed.
    #[error("local end of the stream failed: {0}")]
    Local(#[source] std::io::Error),
}

impl From<FrameError> for StreamError {
    fn from(error: FrameError) -> Self {
        match error {
            FrameError::Malformed(what) => Self::Protocol(what),
            FrameError::Connection(error) => Self::Local(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex, split};

    use super::*;

    /// Bytes come through whole and in order although the connection breaks again and again.
    #[tokio::test]
    async fn a_stream_survives_broken_connections() {
        let data: Vec<u8> = (0..3_000_000u32).map(|n| (n % 251) as u8).collect();
        let (mut source, mut feed) = duplex(8 * 1024);
        let (mut sink, mut drain) = duplex(8 * 1024);
        let sent = data.clone();
        let feeder = tokio::spawn(async move {
            feed.write_all(&sent).await.unwrap();
        });
        let drainer = tokio::spawn(async move {
            let mut got = Vec::new();
            drain.read_to_end(&mut got).await.unwrap();
            got
        });

        let mut sender = Sender::default();
        let mut receiver = Receiver::default();
        for turn in 0.. {
            let (near, far) = duplex(4096);
            let (near_read, mut near_write) = split(near);
            let (far_read, mut far_write) = split(far);
            // The first connections break after some bytes; each next one lives longer.
            let limit = 100_000 * (turn + 1);
            let resume = receiver.received();
            let sending = async {
                let mut from_peer = FrameReader::new(near_read);
                let turn = sender.run(&mut source, &mut from_peer, &mut near_write, resume).await;
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
        feeder.await.unwrap();
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
