//! From frames to bytes.

use bytes::{BufMut, BytesMut};

use super::{FLAG_FIN, FLAG_UNIDIRECTIONAL, Frame, MAX_PAYLOAD, StreamId, VERSION, kind};

impl Frame {
    /// Appends the frame to `out`. A payload is at most [`MAX_PAYLOAD`] bytes: a header block's limit and the size of
    /// our data frames are far below.
    pub fn write_to(&self, out: &mut BytesMut) {
        match self {
            Self::SynStream { id, associated, priority, fin, unidirectional, block } => {
                let flags = flag(*fin, FLAG_FIN) | flag(*unidirectional, FLAG_UNIDIRECTIONAL);
                control(out, kind::SYN_STREAM, flags, 10 + block.len());
                out.put_u32(id.get());
                out.put_u32(associated.map_or(0, StreamId::get));
                out.put_u8(priority << 5);
                out.put_u8(0);
                out.put_slice(block);
            }
            Self::SynReply { id, fin, block } => header_block(out, kind::SYN_REPLY, *id, *fin, block),
            Self::Headers { id, fin, block } => header_block(out, kind::HEADERS, *id, *fin, block),
            Self::RstStream { id, status } => pair(out, kind::RST_STREAM, id.get(), (*status).into()),
            Self::Settings(settings) => {
                control(out, kind::SETTINGS, 0, 4 + 8 * settings.len());
                out.put_uint(settings.len() as u64, 4);
                for setting in settings {
                    out.put_u32(setting.id);
                    out.put_u32(setting.value);
                }
            }
            Self::Ping(id) => {
                control(out, kind::PING, 0, 4);
                out.put_u32(*id);
            }
            Self::GoAway { last_good, status } => pair(out, kind::GOAWAY, *last_good, (*status).into()),
            Self::WindowUpdate { id, delta } => {
                pair(out, kind::WINDOW_UPDATE, id.map_or(0, StreamId::get), *delta);
            }
            Self::Data { id, fin, bytes } => {
                data_frame_header(out, *id, *fin, bytes.len());
                out.put_slice(bytes);
            }
        }
    }
}

/// Appends the header of a data frame of `length` bytes, which the caller then appends.
pub fn data_frame_header(out: &mut BytesMut, id: StreamId, fin: bool, length: usize) {
    out.put_u32(id.get());
    flags_and_length(out, flag(fin, FLAG_FIN), length);
}

fn control(out: &mut BytesMut, kind: u16, flags: u8, length: usize) {
    out.put_u16(0x8000 | VERSION);
    out.put_u16(kind);
    flags_and_length(out, flags, length);
}

fn flags_and_length(out: &mut BytesMut, flags: u8, length: usize) {
    debug_assert!(length <= MAX_PAYLOAD, "a payload of {length} bytes has no length on the wire");
    out.put_u8(flags);
    out.put_uint(length as u64, 3);
}

fn header_block(out: &mut BytesMut, kind: u16, id: StreamId, fin: bool, block: &[u8]) {
    control(out, kind, flag(fin, FLAG_FIN), 4 + block.len());
    out.put_u32(id.get());
    out.put_slice(block);
}

fn pair(out: &mut BytesMut, kind: u16, first: u32, second: u32) {
    control(out, kind, 0, 8);
    out.put_u32(first);
    out.put_u32(second);
}

fn flag(set: bool, flag: u8) -> u8 {
    if set { flag } else { 0 }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::frame::{GoAwayStatus, Parser, ResetStatus, Setting};

    #[test]
    fn every_frame_comes_back_as_it_was() {
        let id = StreamId::new(0x7fff_ffff).unwrap();
        let block = Bytes::from_static(b"block");
        let mut frames = vec![
            Frame::SynReply { id, fin: true, block: block.clone() },
            Frame::Headers { id, fin: false, block: block.clone() },
            Frame::Settings(vec![]),
            Frame::Settings(vec![
                Setting { id: Setting::INITIAL_WINDOW_SIZE, value: 1 << 20 },
                Setting { id: 0x00ff_ffff, value: u32::MAX },
            ]),
            Frame::Ping(u32::MAX),
            Frame::WindowUpdate { id: None, delta: 1 },
            Frame::WindowUpdate { id: Some(id), delta: 0x7fff_ffff },
            Frame::Data { id, fin: false, bytes: Bytes::from_static(b"data") },
            Frame::Data { id, fin: true, bytes: Bytes::new() },
        ];
        for code in 0..13 {
            frames.push(Frame::RstStream { id, status: ResetStatus::from(code) });
            frames.push(Frame::GoAway { last_good: code, status: GoAwayStatus::from(code) });
        }
        for bits in 0..4u8 {
            let (fin, unidirectional) = (bits & 1 != 0, bits & 2 != 0);
            let associated = StreamId::new(u32::from(bits));
            let priority = bits * 2 + 1;
            frames.push(Frame::SynStream {
                id,
                associated,
                priority,
                fin,
                unidirectional,
                block: block.clone(),
            });
        }
        let mut wire = BytesMut::new();
        frames.iter().for_each(|frame| frame.write_to(&mut wire));
        let mut parser = Parser::new(1024);
        for frame in frames {
            assert_eq!(parser.next(&mut wire).unwrap(), Some(frame));
        }
        assert!(wire.is_empty() && parser.at_boundary());
    }
}
