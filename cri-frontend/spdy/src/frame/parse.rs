//! From bytes to frames.

use bytes::{Buf, Bytes, BytesMut};

use super::{
    FLAG_FIN, FLAG_UNIDIRECTIONAL, FRAME_HEADER, Frame, GoAwayStatus, MAX_31_BITS, ResetStatus, Setting,
    StreamId, VERSION, kind,
};

/// Why the bytes are not SPDY/3.1. None of these leaves a session that could go on: what follows on the wire
/// can't be told from noise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Another version, or no SPDY at all.
    #[error("control frame of SPDY version {0}, not {VERSION}")]
    Version(u16),
    /// The frame is larger than the configuration takes.
    #[error("control frame of type {kind} has {length} bytes, more than {max}")]
    TooLarge {
        /// The frame's type.
        kind: u16,
        /// Its payload in bytes.
        length: usize,
        /// The limit.
        max: usize,
    },
    /// The payload's length is not one that this type can have.
    #[error("control frame of type {kind} has {length} bytes, which its type does not allow")]
    Length {
        /// The frame's type.
        kind: u16,
        /// Its payload in bytes.
        length: usize,
    },
    /// Stream 0 is named where only a stream makes sense.
    #[error("a frame names stream 0")]
    StreamZero,
}

/// Cuts frames from what was read. It holds no bytes of its own.
#[derive(Debug)]
pub struct Parser {
    max_control: usize,
    within: Within,
}

/// What the next byte belongs to.
#[derive(Debug, Clone, Copy)]
enum Within {
    /// A new frame.
    Boundary,
    /// The payload of a control frame, which is cut whole.
    Control { kind: u16, flags: u8, length: usize },
    /// The payload of a data frame, which is cut as it comes.
    Data { id: StreamId, fin: bool, left: usize },
    /// The payload of a control frame of an unknown type: section 2.2.1 has these ignored.
    Unknown { left: usize },
}

impl Parser {
    /// A parser at the beginning of a session, for control frames of at most `max_control` bytes of payload.
    #[must_use]
    pub fn new(max_control: usize) -> Self {
        Self { max_control, within: Within::Boundary }
    }

    /// Whether the bytes so far end where a frame ends.
    #[must_use]
    pub fn at_boundary(&self) -> bool {
        matches!(self.within, Within::Boundary)
    }

    /// Cuts the next frame, or the next piece of a data frame, from the front of `input`; none if more has to be
    /// read first, which is at most `max_control` bytes and a frame's header beyond what `input` then holds.
    ///
    /// # Errors
    /// The peer speaks something else; see [`FrameError`].
    pub fn next(&mut self, input: &mut BytesMut) -> Result<Option<Frame>, FrameError> {
        loop {
            match self.within {
                Within::Boundary => {
                    if input.len() < FRAME_HEADER {
                        return Ok(None);
                    }
                    self.within = self.begin(input.get_u32(), input.get_u32())?;
                }
                Within::Control { kind, flags, length } => {
                    if input.len() < length {
                        return Ok(None);
                    }
                    self.within = Within::Boundary;
                    return control(kind, flags, input.split_to(length).freeze()).map(Some);
                }
                Within::Data { id, fin, left } => {
                    if input.is_empty() && left > 0 {
                        return Ok(None);
                    }
                    let bytes = input.split_to(left.min(input.len())).freeze();
                    let left = left - bytes.len();
                    self.within = if left > 0 { Within::Data { id, fin, left } } else { Within::Boundary };
                    return Ok(Some(Frame::Data { id, fin: fin && left == 0, bytes }));
                }
                Within::Unknown { left } => {
                    let skipped = left.min(input.len());
                    input.advance(skipped);
                    if skipped < left {
                        self.within = Within::Unknown { left: left - skipped };
                        return Ok(None);
                    }
                    self.within = Within::Boundary;
                }
            }
        }
    }

    /// Reads a frame's header.
    fn begin(&self, first: u32, second: u32) -> Result<Within, FrameError> {
        let [flags, length @ ..] = second.to_be_bytes();
        let length = usize::from(length[0]) << 16 | usize::from(length[1]) << 8 | usize::from(length[2]);
        if first & !MAX_31_BITS == 0 {
            let id = StreamId::new(first).ok_or(FrameError::StreamZero)?;
            return Ok(Within::Data { id, fin: flags & FLAG_FIN != 0, left: length });
        }
        let [high, low, kind @ ..] = first.to_be_bytes();
        let kind = u16::from_be_bytes(kind);
        match u16::from_be_bytes([high & 0x7f, low]) {
            VERSION => {}
            other => return Err(FrameError::Version(other)),
        }
        if !matches!(kind, kind::SYN_STREAM..=kind::SETTINGS | kind::PING..=kind::WINDOW_UPDATE) {
            return Ok(Within::Unknown { left: length });
        }
        if length > self.max_control {
            return Err(FrameError::TooLarge { kind, length, max: self.max_control });
        }
        Ok(Within::Control { kind, flags, length })
    }
}

/// Reads a control frame of a known type.
fn control(kind: u16, flags: u8, mut payload: Bytes) -> Result<Frame, FrameError> {
    let wrong = FrameError::Length { kind, length: payload.len() };
    let fits = match kind {
        kind::SYN_STREAM => payload.len() >= 10,
        kind::SYN_REPLY | kind::HEADERS | kind::SETTINGS | kind::PING => payload.len() >= 4,
        _ => payload.len() == 8,
    };
    if !fits {
        return Err(wrong);
    }
    let first = payload.get_u32();
    let fin = flags & FLAG_FIN != 0;
    let stream = || StreamId::new(first).ok_or(FrameError::StreamZero);
    Ok(match kind {
        kind::SYN_STREAM => {
            let associated = StreamId::new(payload.get_u32());
            let priority = payload.get_u8() >> 5;
            // The slot of a client certificate, which nobody sends since draft 3.1.
            payload.advance(1);
            let unidirectional = flags & FLAG_UNIDIRECTIONAL != 0;
            Frame::SynStream { id: stream()?, associated, priority, fin, unidirectional, block: payload }
        }
        kind::SYN_REPLY => Frame::SynReply { id: stream()?, fin, block: payload },
        kind::HEADERS => Frame::Headers { id: stream()?, fin, block: payload },
        kind::RST_STREAM => Frame::RstStream { id: stream()?, status: ResetStatus::from(payload.get_u32()) },
        kind::SETTINGS => Frame::Settings(settings(first, payload).ok_or(wrong)?),
        kind::PING if payload.is_empty() => Frame::Ping(first),
        kind::GOAWAY => {
            Frame::GoAway { last_good: first & MAX_31_BITS, status: GoAwayStatus::from(payload.get_u32()) }
        }
        kind::WINDOW_UPDATE => {
            Frame::WindowUpdate { id: StreamId::new(first), delta: payload.get_u32() & MAX_31_BITS }
        }
        _ => return Err(wrong),
    })
}

/// Reads the entries of a SETTINGS frame; none if their number is not what the frame's length says.
fn settings(count: u32, mut entries: Bytes) -> Option<Vec<Setting>> {
    if u64::from(count) * 8 != entries.len() as u64 {
        return None;
    }
    let mut settings = Vec::with_capacity(entries.len() / 8);
    while entries.has_remaining() {
        let id = entries.get_u32() & 0x00ff_ffff;
        settings.push(Setting { id, value: entries.get_u32() });
    }
    Some(settings)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(bytes: &[u8]) -> Result<Option<Frame>, FrameError> {
        Parser::new(1024).next(&mut BytesMut::from(bytes))
    }

    /// Each of these is refused at once, without waiting for what it announces.
    #[test]
    fn refuses_what_is_not_spdy() {
        let table: &[(&str, &[u8], FrameError)] = &[
            ("HTTP, taken for a data frame of 0x4745_5420", b"\x80GET / HTTP", FrameError::Version(0x47)),
            ("SPDY/2", &[0x80, 2, 0, 1, 0, 0, 0, 12], FrameError::Version(2)),
            (
                "a header block beyond the limit",
                &[0x80, 3, 0, 1, 0, 0, 4, 1],
                FrameError::TooLarge { kind: 1, length: 1025, max: 1024 },
            ),
            (
                "SYN_STREAM cut short",
                &[0x80, 3, 0, 1, 0, 0, 0, 9, 0, 0, 0, 1, 0, 0, 0, 0, 0],
                FrameError::Length { kind: 1, length: 9 },
            ),
            ("SYN_REPLY of no stream", &[0x80, 3, 0, 2, 0, 0, 0, 4, 0, 0, 0, 0], FrameError::StreamZero),
            (
                "RST_STREAM with a tail",
                &[0x80, 3, 0, 3, 0, 0, 0, 9, 0, 0, 0, 1, 0, 0, 0, 5, 0],
                FrameError::Length { kind: 3, length: 9 },
            ),
            (
                "SETTINGS of 2³²−1 entries",
                &[0x80, 3, 0, 4, 0, 0, 0, 12, 255, 255, 255, 255, 0, 0, 0, 7, 0, 0, 0, 0],
                FrameError::Length { kind: 4, length: 12 },
            ),
            (
                "SETTINGS that has more than it counts",
                &[0x80, 3, 0, 4, 0, 0, 0, 12, 0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 0],
                FrameError::Length { kind: 4, length: 12 },
            ),
            (
                "PING of eight bytes",
                &[0x80, 3, 0, 6, 0, 0, 0, 8, 0, 0, 0, 1, 0, 0, 0, 1],
                FrameError::Length { kind: 6, length: 8 },
            ),
            (
                "GOAWAY of SPDY/2's size",
                &[0x80, 3, 0, 7, 0, 0, 0, 4, 0, 0, 0, 0],
                FrameError::Length { kind: 7, length: 4 },
            ),
            ("data on stream 0", &[0, 0, 0, 0, 0, 0, 0, 1, 9], FrameError::StreamZero),
        ];
        for (what, bytes, error) in table {
            assert_eq!(parse(bytes), Err(*error), "{what}");
        }
    }

    #[test]
    fn waits_for_the_rest_of_a_control_frame() {
        let ping = [0x80, 3, 0, 6, 0, 0, 0, 4, 0, 0, 0, 9];
        let mut parser = Parser::new(64);
        let mut input = BytesMut::new();
        for byte in &ping[..11] {
            input.extend_from_slice(&[*byte]);
            assert_eq!(parser.next(&mut input), Ok(None));
        }
        assert!(!parser.at_boundary());
        input.extend_from_slice(&ping[11..]);
        assert_eq!(parser.next(&mut input), Ok(Some(Frame::Ping(9))));
        assert!(parser.at_boundary());
    }

    /// A client may put 16 MiB into one frame; each read's part is handed on, and only the last one ends the stream.
    #[test]
    fn hands_data_on_as_it_comes() {
        let mut parser = Parser::new(64);
        let mut input = BytesMut::from(&[0, 0, 0, 5, 1, 0xff, 0xff, 0xff, b'a', b'b'][..]);
        let id = StreamId::new(5).unwrap();
        let piece =
            |fin, bytes: &'static [u8]| Some(Frame::Data { id, fin, bytes: Bytes::from_static(bytes) });
        assert_eq!(parser.next(&mut input), Ok(piece(false, b"ab")));
        assert_eq!(parser.next(&mut input), Ok(None));
        let mut left = super::super::MAX_PAYLOAD - 2;
        while left > 0 {
            let read = left.min(1 << 20);
            input.extend_from_slice(&vec![7; read]);
            left -= read;
            let Ok(Some(Frame::Data { fin, bytes, .. })) = parser.next(&mut input) else { panic!("no data") };
            assert_eq!((fin, bytes.len()), (left == 0, read));
        }
        assert!(parser.at_boundary());
    }

    #[test]
    fn an_empty_data_frame_ends_a_stream() {
        let id = StreamId::new(1).unwrap();
        assert_eq!(
            parse(&[0, 0, 0, 1, 1, 0, 0, 0]),
            Ok(Some(Frame::Data { id, fin: true, bytes: Bytes::new() }))
        );
    }

    /// CREDENTIAL (10), SPDY/2's NOOP (5) and what is yet to be invented, however large.
    #[test]
    fn skips_unknown_control_frames() {
        for kind in [0, 5, 10, 0xffff] {
            let [high, low] = u16::to_be_bytes(kind);
            let mut parser = Parser::new(64);
            let mut input = BytesMut::from(&[0x80, 3, high, low, 0, 0, 0x10, 0][..]);
            for _ in 0..4 {
                input.extend_from_slice(&[0x80; 1024]);
                assert_eq!(parser.next(&mut input), Ok(None));
                assert!(input.is_empty());
            }
            input.extend_from_slice(&[0x80, 3, 0, 6, 0, 0, 0, 4, 0, 0, 0, 1]);
            assert_eq!(parser.next(&mut input), Ok(Some(Frame::Ping(1))), "after type {kind}");
        }
    }
}
