//! The end of a stream that has the bytes: a process's output in the guest, its stdin on the host.

use std::{collections::VecDeque, io};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::{
    FrameError, FrameReader, Kind, MAX_PAYLOAD, StreamError, Turn, WINDOW,
    frame::{encode, parse_offset},
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
        let mut buffer = vec![0; MAX_PAYLOAD];
        let mut outgoing = Outgoing { bytes: self.replay(), written: 0 };
        loop {
            let room = (WINDOW - self.unacknowledged.len()).min(buffer.len());
            let may_read = !self.ended && room > 0 && outgoing.is_empty();
            // Each branch is cancel-safe, so that acknowledgements are read while a write waits for the peer.
            tokio::select! {
                frame = from_peer.next() => match frame {
                    Ok((Kind::Ack, offset)) => self.acknowledge(parse_offset(offset)?)?,
                    Ok((Kind::End, _)) if self.ended => return Ok(Turn::Finished),
                    Ok(_) => return Err(StreamError::Protocol("a sender gets ACK and END only")),
                    Err(FrameError::Connection(_)) => return Ok(Turn::Disconnected),
                    Err(FrameError::Malformed(what)) => return Err(StreamError::Protocol(what)),
                },
                written = to_peer.write(outgoing.rest()), if !outgoing.is_empty() => match written {
                    Ok(count) if count > 0 => outgoing.written += count,
                    _ => return Ok(Turn::Disconnected),
                },
                read = source.read(&mut buffer[..room]), if may_read => {
                    outgoing = self.took(read.map(|count| &buffer[..count]))?;
                }
            }
        }
    }

    /// The frames of what the source gave: bytes, its end, or an error.
    fn took(&mut self, read: io::Result<&[u8]>) -> Result<Outgoing, StreamError> {
        let bytes = match read {
            Ok([]) => {
                self.ended = true;
                encode(Kind::End, &[])
            }
            Ok(bytes) => {
                self.unacknowledged.extend(bytes);
                encode(Kind::Data, bytes)
            }
            Err(error) => return Err(StreamError::Local(error)),
        };
        Ok(Outgoing { bytes, written: 0 })
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

/// Frames on their way out.
struct Outgoing {
    bytes: Vec<u8>,
    written: usize,
}

impl Outgoing {
    fn rest(&self) -> &[u8] {
        &self.bytes[self.written..]
    }

    fn is_empty(&self) -> bool {
        self.written == self.bytes.len()
    }
}
