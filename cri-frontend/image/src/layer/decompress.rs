//! gzip, zstd or plain: told by the first bytes, as containerd does, because media types lie.

use std::io::{self, BufReader, Chain, Cursor, Read};

use flate2::bufread::MultiGzDecoder;

const GZIP: [u8; 3] = [0x1f, 0x8b, 0x08];
const ZSTD: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
/// A frame of zstd that readers skip begins with one of sixteen numbers: some compressors put it first.
const ZSTD_SKIPPED: [u8; 3] = [0x2a, 0x4d, 0x18];
/// zstd's own default for its command line: windows up to 128 MiB.
const ZSTD_WINDOW_LOG: u32 = 27;
const BUFFER: usize = 64 << 10;

/// The compressed stream with its first bytes put back.
type Whole<R> = BufReader<Chain<Cursor<Vec<u8>>, R>>;

/// A stream of uncompressed bytes.
pub(super) enum Decompressed<R: Read> {
    /// Any number of gzip members.
    Gzip(Box<MultiGzDecoder<Whole<R>>>),
    /// Any number of zstd frames.
    Zstd(zstd::Decoder<'static, Whole<R>>),
    /// As it is.
    Plain(Whole<R>),
}

impl<R: Read> Decompressed<R> {
    /// Looks at the first bytes and chooses.
    pub(super) fn new(mut stream: R) -> io::Result<Self> {
        let mut start = Vec::with_capacity(ZSTD.len());
        stream.by_ref().take(ZSTD.len() as u64).read_to_end(&mut start)?;
        let whole = BufReader::with_capacity(BUFFER, Cursor::new(start.clone()).chain(stream));
        if start.starts_with(&GZIP) {
            return Ok(Self::Gzip(Box::new(MultiGzDecoder::new(whole))));
        }
        let skipped = start.len() == 4 && start[0] & 0xf0 == 0x50 && start[1..] == ZSTD_SKIPPED;
        if start == ZSTD || skipped {
            let mut decoder = zstd::Decoder::with_buffer(whole)?;
            decoder.window_log_max(ZSTD_WINDOW_LOG)?;
            return Ok(Self::Zstd(decoder));
        }
        Ok(Self::Plain(whole))
    }
}

impl<R: Read> Read for Decompressed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Gzip(decoder) => decoder.read(buffer),
            Self::Zstd(decoder) => decoder.read(buffer),
            Self::Plain(stream) => stream.read(buffer),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    /// A stream that brings one byte at a time.
    struct Trickle(Cursor<Vec<u8>>);

    impl Read for Trickle {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let length = buffer.len().min(1);
            self.0.read(&mut buffer[..length])
        }
    }

    fn unpacked(blob: Vec<u8>) -> io::Result<Vec<u8>> {
        let mut stream = Decompressed::new(Trickle(Cursor::new(blob)))?;
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    fn gzip(text: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn every_form_is_known_by_its_first_bytes() {
        assert_eq!(unpacked(gzip(b"text")).unwrap(), b"text");
        assert_eq!(unpacked([gzip(b"two "), gzip(b"members")].concat()).unwrap(), b"two members");
        let frame = zstd::encode_all(&b"frame"[..], 3).unwrap();
        assert_eq!(unpacked([frame.clone(), frame.clone()].concat()).unwrap(), b"frameframe");
        let skipped = b"\x5e\x2a\x4d\x18\x03\0\0\0abc";
        assert_eq!(unpacked([skipped.as_slice(), &frame].concat()).unwrap(), b"frame");
        assert_eq!(unpacked(b"no".to_vec()).unwrap(), b"no");
        assert_eq!(unpacked(Vec::new()).unwrap(), b"");
    }

    #[test]
    fn a_cut_stream_is_an_error() {
        let mut blob = gzip(&[7; 5000]);
        blob.truncate(blob.len() - 5);
        assert!(unpacked(blob).is_err());
        let mut frame = zstd::encode_all(&[7; 5000][..], 3).unwrap();
        frame.truncate(frame.len() - 2);
        assert!(unpacked(frame).is_err());
    }
}
