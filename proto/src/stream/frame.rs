//! The frame: kind (1 byte), zero (3 bytes), payload length (4 bytes, big-endian), payload.

use std::io;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// The largest payload that a peer may send, in bytes.
pub const MAX_PAYLOAD: usize = 64 * 1024;
/// The most that a guest writes at once. Linux (since 6.12.43) puts more than 32 KiB less its overheads into several
/// buffers of one packet, and rust-vmm's vhost-device-vsock (virtio-vsock 0.10, `from_tx_virtq_chain`) drops a packet
/// that has more than one: bytes would be missing in the middle of a stream.
pub const MAX_PACKET: usize = 28 * 1024;
pub(super) const HEADER: usize = 8;
/// What is read from a stream at once: its frame fills two packets.
pub(super) const CHUNK: usize = 2 * MAX_PACKET - HEADER;
/// The room for one read from a connection, at least.
const READ: usize = 32 * 1024;

/// What a frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// First frame of the connection's dialler.
    Open = 1,
    /// The answer that the connection may be used.
    Opened = 2,
    /// The answer that it may not: a text that says why.
    Error = 3,
    /// Bytes of the stream.
    Data = 4,
    /// The number of bytes handed on so far, 8 bytes big-endian.
    Ack = 5,
    /// The end of the stream; sent back when it was handed on.
    End = 6,
    /// Bytes of the stream that are in the file that both sides have: where, and how many, 4 bytes big-endian each.
    Placed = 7,
}

impl Kind {
    fn parse(byte: u8) -> Option<Self> {
        [Self::Open, Self::Opened, Self::Error, Self::Data, Self::Ack, Self::End, Self::Placed]
            .into_iter()
            .find(|kind| *kind as u8 == byte)
    }
}

/// Why no frame could be read.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The connection failed or ended.
    #[error("connection broke: {0}")]
    Connection(#[from] io::Error),
    /// The bytes are no frame.
    #[error("not a frame: {0}")]
    Malformed(&'static str),
}

/// Reads frames from a connection.
#[derive(Debug)]
pub struct FrameReader<R> {
    connection: R,
    /// Bytes read and not handed out yet, after the frame that was handed out last.
    buffer: BytesMut,
    /// Length of the frame handed out last, header included: dropped at the next call.
    taken: usize,
}

impl<R: AsyncRead + Unpin> FrameReader<R> {
    /// A reader at a connection's first byte.
    pub fn new(connection: R) -> Self {
        Self { connection, buffer: BytesMut::new(), taken: 0 }
    }

    /// The next frame. Cancel-safe: a dropped call loses nothing.
    ///
    /// # Errors
    /// The connection broke, or what it brought is no frame.
    pub async fn next(&mut self) -> Result<(Kind, &[u8]), FrameError> {
        self.buffer.advance(std::mem::take(&mut self.taken));
        let (kind, end) = loop {
            let missing = match parse_header(&self.buffer)? {
                Some((kind, length)) if HEADER + length <= self.buffer.len() => {
                    break (kind, HEADER + length);
                }
                Some((_, length)) => HEADER + length - self.buffer.len(),
                None => HEADER,
            };
            self.buffer.reserve(missing.max(READ));
            if self.connection.read_buf(&mut self.buffer).await? == 0 {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
            }
        };
        self.taken = end;
        Ok((kind, &self.buffer[HEADER..end]))
    }
}

fn parse_header(buffer: &[u8]) -> Result<Option<(Kind, usize)>, FrameError> {
    let Some(header) = buffer.first_chunk::<HEADER>() else {
        return Ok(None);
    };
    let [kind, zero @ .., l0, l1, l2, l3] = *header;
    let kind = Kind::parse(kind).ok_or(FrameError::Malformed("unknown kind"))?;
    if zero != [0; 3] {
        return Err(FrameError::Malformed("reserved bytes are not zero"));
    }
    let length = u32::from_be_bytes([l0, l1, l2, l3]) as usize;
    if length > MAX_PAYLOAD {
        return Err(FrameError::Malformed("payload too long"));
    }
    Ok(Some((kind, length)))
}

/// The beginning of a frame.
pub(super) fn header(kind: Kind, length: usize) -> [u8; HEADER] {
    let [l0, l1, l2, l3] = (length as u32).to_be_bytes();
    [kind as u8, 0, 0, 0, l0, l1, l2, l3]
}

/// The bytes of a frame. The payload is cut at [`MAX_PAYLOAD`]; callers keep below it.
pub(super) fn encode(kind: Kind, payload: &[u8]) -> Vec<u8> {
    let payload = &payload[..payload.len().min(MAX_PAYLOAD)];
    let mut frame = Vec::with_capacity(HEADER + payload.len());
    frame.extend_from_slice(&header(kind, payload.len()));
    frame.extend_from_slice(payload);
    frame
}

/// Writes one frame; an error's text beyond [`MAX_PAYLOAD`] is cut.
///
/// # Errors
/// The connection broke.
pub async fn write_frame(
    connection: &mut (impl AsyncWrite + Unpin),
    kind: Kind,
    payload: &[u8],
) -> io::Result<()> {
    connection.write_all(&encode(kind, payload)).await?;
    connection.flush().await
}

/// Reads the payload of an ACK or OPENED frame: an offset in the stream.
///
/// # Errors
/// It is not 8 bytes long.
pub fn parse_offset(payload: &[u8]) -> Result<u64, FrameError> {
    let bytes = payload.try_into().map_err(|_| FrameError::Malformed("an offset has 8 bytes"))?;
    Ok(u64::from_be_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn frames_come_back_whole_from_any_fragments() {
        let mut bytes = encode(Kind::Data, b"hello");
        bytes.extend(encode(Kind::End, &[]));
        let (mut near, far) = tokio::io::duplex(1);
        let writer = tokio::spawn(async move { near.write_all(&bytes).await });
        let mut reader = FrameReader::new(far);
        assert_eq!(reader.next().await.unwrap(), (Kind::Data, b"hello".as_slice()));
        assert_eq!(reader.next().await.unwrap(), (Kind::End, [].as_slice()));
        writer.await.unwrap().unwrap();
        assert!(matches!(reader.next().await, Err(FrameError::Connection(_))));
    }

    #[tokio::test]
    async fn what_is_no_frame_is_refused_before_memory_is_taken() {
        for bad in [[9, 0, 0, 0, 0, 0, 0, 1], [4, 0, 0, 0, 255, 255, 255, 255], [4, 1, 0, 0, 0, 0, 0, 0]] {
            let mut reader = FrameReader::new(bad.as_slice());
            assert!(matches!(reader.next().await, Err(FrameError::Malformed(_))), "{bad:?}");
        }
    }
}
