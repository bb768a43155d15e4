//! The end of a stream that has the bytes: a process's output in the guest, its stdin on the host.

use std::{collections::VecDeque, io};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::{
    FrameError, FrameReader, Kind, MAX_PAYLOAD, StreamError, Turn, WINDOW,
    frame::{CHUNK, HEADER, encode, header, parse_offset},
};

/// What a sender remembers from one connection to the next.
#[derive(Debug, Default)]
pub struct Sender {
    /// Read from the source and not acknowledged by the receiver.
    unacknowledged: VecDeque<u8>,
    /// Offset in the stream of the first of them.
    base: u64,
    /// The source has ended.
    ended: bool,
}

impl Sender {
    /// Sends until the stream's end is confirmed or the connection breaks. `resume` is the peer's word how many
    /// bytes it already has. A dropped call loses nothing that was read from the source.
    ///
    /// # Errors
    /// The peer breaks the protocol, or the source cannot be read.
    pub async fn run(
        &mut self,
        source: &mut (impl AsyncRead + Unpin),
        from_peer: &mut FrameReader<impl AsyncRead + Unpin>,
        to_peer: &mut (impl AsyncWrite + Unpin),
        resume: u64,
    ) -> Result<Turn, StreamError> {
        self.acknowledge(resume)?;
        let mut outgoing = Outgoing::new(self.replay());
        loop {
            let room = if self.ended { 0 } else { (WINDOW - self.unacknowledged.len()).min(CHUNK) };
            // Each branch is cancel-safe, so that acknowledgements are read while a write waits for the peer.
            tokio::select! {
                biased;
                frame = from_peer.next() => match frame {
                    Ok((Kind::Ack, offset)) => self.acknowledge(parse_offset(offset)?)?,
                    Ok((Kind::End, _)) if self.ended => return Ok(Turn::Finished),
                    Ok(_) => return Err(StreamError::Protocol("a sender gets ACK and END only")),
                    Err(FrameError::Connection(_)) => return Ok(Turn::Disconnected),
                    Err(FrameError::Malformed(what)) => return Err(StreamError::Protocol(what)),
                },
                moved = outgoing.advance(source, to_peer, room) => match moved {
                    Moved::Written(Ok(count @ 1..)) => outgoing.written += count,
                    Moved::Written(_) => return Ok(Turn::Disconnected),
                    Moved::Read(count) => {
                        let count = count.map_err(StreamError::Local)?;
                        self.ended = count == 0;
                        self.unacknowledged.extend(outgoing.frame(count));
                    }
                },
            }
        }
    }

    /// The frames that a new connection begins with: all that was sent before and not acknowledged.
    fn replay(&mut self) -> Vec<u8> {
        let mut frames = Vec::new();
        for chunk in self.unacknowledged.make_contiguous().chunks(MAX_PAYLOAD) {
            frames.extend(encode(Kind::Data, chunk));
        }
        if self.ended {
            frames.extend(encode(Kind::End, &[]));
        }
        frames
    }

    fn acknowledge(&mut self, offset: u64) -> Result<(), StreamError> {
        let count = offset
            .checked_sub(self.base)
            .and_then(|count| usize::try_from(count).ok())
            .filter(|count| *count <= self.unacknowledged.len())
            .ok_or(StreamError::Protocol("acknowledged what was not sent"))?;
        self.unacknowledged.drain(..count);
        self.base = offset;
        Ok(())
    }
}

/// Frames on their way out, and the place where the next is made.
struct Outgoing {
    bytes: Vec<u8>,
    written: usize,
    end: usize,
}

/// One step: what was made by the last is written before more is read.
enum Moved {
    Written(io::Result<usize>),
    Read(io::Result<usize>),
}

impl Outgoing {
    fn new(mut frames: Vec<u8>) -> Self {
        let end = frames.len();
        frames.resize(end.max(HEADER + CHUNK), 0);
        Self { bytes: frames, written: 0, end }
    }

    /// Cancel-safe. For ever, where there is nothing to write and no room to read to.
    async fn advance(
        &mut self,
        source: &mut (impl AsyncRead + Unpin),
        to_peer: &mut (impl AsyncWrite + Unpin),
        room: usize,
    ) -> Moved {
        if self.written < self.end {
            Moved::Written(to_peer.write(&self.bytes[self.written..self.end]).await)
        } else if room > 0 {
            Moved::Read(source.read(&mut self.bytes[HEADER..HEADER + room]).await)
        } else {
            std::future::pending().await
        }
    }

    /// Makes a frame of what was read; nothing is the end. Answers the bytes.
    fn frame(&mut self, count: usize) -> &[u8] {
        let kind = if count == 0 { Kind::End } else { Kind::Data };
        self.bytes[..HEADER].copy_from_slice(&header(kind, count));
        (self.written, self.end) = (0, HEADER + count);
        &self.bytes[HEADER..self.end]
    }
}
