//! The end of a stream that has the bytes: a process's output in the guest, its stdin on the host.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::{
    FrameError, FrameReader, Kind, StreamError, Turn, WINDOW,
    bulk::{MOST_SLOTS, Placed},
    frame::{CHUNK, HEADER, header, parse_offset},
    held::{Held, placed_frame},
};

/// Where a sender's bytes come from.
pub trait Source {
    /// Takes the next bytes. Cancel-safe.
    fn take(&mut self, buffer: &mut [u8]) -> impl Future<Output = io::Result<Taken>> + Send;
}

/// Bytes that were taken.
#[derive(Debug)]
pub enum Taken {
    /// So many, into the buffer; none is the end.
    Read(usize),
    /// Many, into the file that both sides have.
    Placed(Placed),
}

impl<R: AsyncRead + Unpin + Send> Source for R {
    async fn take(&mut self, buffer: &mut [u8]) -> io::Result<Taken> {
        self.read(buffer).await.map(Taken::Read)
    }
}

/// What a sender remembers from one connection to the next.
#[derive(Debug, Default)]
pub struct Sender {
    /// Taken from the source and not acknowledged by the receiver.
    held: Held,
    /// The source has ended.
    ended: bool,
}

impl Sender {
    /// Sends until the stream's end is confirmed or the connection breaks. `resume` is the peer's word how many
    /// bytes it already has. A dropped call loses nothing that was taken from the source.
    ///
    /// # Errors
    /// The peer breaks the protocol, or the source cannot be read.
    pub async fn run(
        &mut self,
        source: &mut impl Source,
        from_peer: &mut FrameReader<impl AsyncRead + Unpin>,
        to_peer: &mut (impl AsyncWrite + Unpin),
        resume: u64,
    ) -> Result<Turn, StreamError> {
        self.held.acknowledge(resume)?;
        let mut outgoing = Outgoing::new(self.held.replay());
        if self.ended {
            outgoing.append_end();
        }
        loop {
            let room = self.room();
            // Each branch is cancel-safe, so that acknowledgements are read while a write waits for the peer.
            tokio::select! {
                biased;
                frame = from_peer.next() => match frame {
                    Ok((Kind::Ack, offset)) => self.held.acknowledge(parse_offset(offset)?)?,
                    Ok((Kind::End, _)) if self.ended => return Ok(Turn::Finished),
                    Ok(_) => return Err(StreamError::Protocol("a sender gets ACK and END only")),
                    Err(FrameError::Connection(_)) => return Ok(Turn::Disconnected),
                    Err(FrameError::Malformed(what)) => return Err(StreamError::Protocol(what)),
                },
                moved = outgoing.advance(source, to_peer, room) => match moved {
                    Moved::Written(Ok(count @ 1..)) => outgoing.written += count,
                    Moved::Written(_) => return Ok(Turn::Disconnected),
                    Moved::Taken(taken) => match taken.map_err(StreamError::Local)? {
                        Taken::Read(0) => {
                            self.ended = true;
                            outgoing.append_end();
                        }
                        Taken::Read(count) => self.held.push(outgoing.frame(count)),
                        Taken::Placed(placed) => {
                            outgoing.append(&placed_frame(placed.place()));
                            self.held.push_placed(placed);
                        }
                    },
                },
            }
        }
    }

    /// How many bytes may be read into memory. While there are none, nothing is taken.
    fn room(&self) -> usize {
        if self.ended || self.held.slots() >= MOST_SLOTS {
            return 0;
        }
        (WINDOW - self.held.bytes()).min(CHUNK)
    }
}

/// Frames on their way out, and the place where the next is made.
struct Outgoing {
    bytes: Vec<u8>,
    written: usize,
    end: usize,
}

/// One step: what was made by the last is written before more is taken.
enum Moved {
    Written(io::Result<usize>),
    Taken(io::Result<Taken>),
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
        source: &mut impl Source,
        to_peer: &mut (impl AsyncWrite + Unpin),
        room: usize,
    ) -> Moved {
        if self.written < self.end {
            Moved::Written(to_peer.write(&self.bytes[self.written..self.end]).await)
        } else if room > 0 {
            Moved::Taken(source.take(&mut self.bytes[HEADER..HEADER + room]).await)
        } else {
            std::future::pending().await
        }
    }

    /// Makes a frame of what was read. Answers the bytes.
    fn frame(&mut self, count: usize) -> &[u8] {
        self.bytes[..HEADER].copy_from_slice(&header(Kind::Data, count));
        (self.written, self.end) = (0, HEADER + count);
        &self.bytes[HEADER..self.end]
    }

    /// A frame behind those that are on their way.
    fn append(&mut self, frame: &[u8]) {
        self.bytes.truncate(self.end);
        self.bytes.drain(..std::mem::take(&mut self.written));
        self.bytes.extend_from_slice(frame);
        self.end = self.bytes.len();
        self.bytes.resize(self.end.max(HEADER + CHUNK), 0);
    }

    fn append_end(&mut self) {
        self.append(&header(Kind::End, 0));
    }
}
