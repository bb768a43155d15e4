//! Header compression: one zlib stream a direction for the whole session, begun with SPDY/3's dictionary and
//! flushed after each block, so that every block can be read as soon as it is there (draft 3.1, section 2.6.10.1).
//!
//! A block that is refused still has to be decompressed, as all that follow refer to it.

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

use super::dictionary::DICTIONARY;

/// Why a direction's headers can't be read or written any longer. The session ends: both sides' states differ now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CompressionError {
    /// The block is no piece of a zlib stream with SPDY/3's dictionary.
    #[error("a header block cannot be decompressed")]
    Corrupt,
    /// The block is larger than the configuration takes.
    #[error("a header block has more than {max} bytes")]
    TooLarge {
        /// The limit in bytes, before compression.
        max: usize,
    },
    /// The compressor failed.
    #[error("a header block cannot be compressed")]
    Compress,
}

/// Bytes by which the output grows.
const STEP: usize = 1024;

/// Reads the peer's header blocks, in the order of the wire.
#[derive(Debug)]
pub struct Decompressor {
    inner: Decompress,
    max: usize,
}

impl Decompressor {
    /// At the beginning of a session, for blocks of at most `max` bytes before compression.
    #[must_use]
    pub fn new(max: usize) -> Self {
        Self { inner: Decompress::new(true), max }
    }

    /// Decompresses the next block. No more than `max` bytes are ever made of it, however small it is.
    ///
    /// # Errors
    /// See [`CompressionError`]; none is recoverable.
    pub fn decompress(&mut self, mut block: &[u8]) -> Result<Vec<u8>, CompressionError> {
        let mut output = Vec::with_capacity(STEP);
        loop {
            let (read, written) = (self.inner.total_in(), output.len());
            let result = self.inner.decompress_vec(block, &mut output, FlushDecompress::Sync);
            let read =
                usize::try_from(self.inner.total_in() - read).map_err(|_| CompressionError::Corrupt)?;
            block = block.get(read..).ok_or(CompressionError::Corrupt)?;
            match result {
                Err(error) if error.needs_dictionary().is_some() => {
                    self.inner
                        .set_dictionary(DICTIONARY.as_bytes())
                        .map_err(|_| CompressionError::Corrupt)?;
                    continue;
                }
                // An end of the zlib stream would leave no way to send another block.
                Err(_) | Ok(Status::StreamEnd) => return Err(CompressionError::Corrupt),
                Ok(Status::Ok | Status::BufError) => {}
            }
            if output.len() > self.max {
                return Err(CompressionError::TooLarge { max: self.max });
            }
            if output.len() == output.capacity() {
                output.reserve(STEP);
            } else if block.is_empty() {
                return Ok(output);
            } else if read == 0 && output.len() == written {
                return Err(CompressionError::Corrupt);
            }
        }
    }
}

/// Writes our header blocks, in the order of the wire.
#[derive(Debug)]
pub struct Compressor {
    inner: Compress,
}

impl Compressor {
    /// At the beginning of a session.
    ///
    /// # Errors
    /// The library does not take the dictionary.
    pub fn new() -> Result<Self, CompressionError> {
        // A window of 2 KiB holds the dictionary, and saves a session 120 KiB.
        let mut inner = Compress::new_with_window_bits(Compression::default(), true, 11);
        inner.set_dictionary(DICTIONARY.as_bytes()).map_err(|_| CompressionError::Compress)?;
        Ok(Self { inner })
    }

    /// Compresses the next block.
    ///
    /// # Errors
    /// The library failed.
    pub fn compress(&mut self, mut block: &[u8]) -> Result<Vec<u8>, CompressionError> {
        let mut output = Vec::with_capacity(STEP);
        loop {
            let read = self.inner.total_in();
            self.inner
                .compress_vec(block, &mut output, FlushCompress::Sync)
                .map_err(|_| CompressionError::Compress)?;
            let read =
                usize::try_from(self.inner.total_in() - read).map_err(|_| CompressionError::Compress)?;
            block = block.get(read..).ok_or(CompressionError::Compress)?;
            if output.len() < output.capacity() && block.is_empty() {
                return Ok(output);
            }
            output.reserve(STEP);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::headers::Headers;

    /// The header blocks of two SYN_STREAM frames that Go's spdystream 0.5.1 wrote.
    const OF_SPDYSTREAM: [&[u8]; 2] = [
        b"\x78\xf9\xe3\xc6\xa7\xc2\x62\x60\x60\x60\x04\xa7\xb3\x92\xa2\xd4\xc4\x5c\x68\x51\xc2\x9a\x0a\x0a\x68\x00\x00\x00\x00\xff\xff",
        b"\x02\x65\x1c\x0c\x29\xb6\xe2\x92\x94\x7c\x70\x19\xcd\x52\x90\x5f\x04\xa2\x99\x2c\x0c\x00\x00\x00\x00\xff\xff",
    ];

    #[test]
    fn reads_what_kubernetes_clients_write() {
        let mut decompressor = Decompressor::new(1 << 16);
        let mut read = |block| Headers::parse(&decompressor.decompress(block).unwrap(), 10).unwrap();
        let first: Headers = [("streamtype", "error")].into_iter().collect();
        let second: Headers = [("streamtype", "stdout"), ("port", "80")].into_iter().collect();
        let [one, two] = OF_SPDYSTREAM.map(&mut read);
        assert_eq!(one, first);
        assert_eq!((two.get("streamtype"), two.get("port")), (second.get("streamtype"), second.get("port")));
    }

    #[test]
    fn blocks_come_back_in_order() {
        let mut compressor = Compressor::new().unwrap();
        let mut decompressor = Decompressor::new(1 << 20);
        for length in [0, 1, 100, STEP - 1, STEP, STEP + 1, 1 << 16, 3, 1 << 20] {
            let block: Vec<u8> = (0..length).map(|n| (n * n % 251) as u8).collect();
            let compressed = compressor.compress(&block).unwrap();
            assert_eq!(decompressor.decompress(&compressed).unwrap(), block);
        }
    }

    /// The first bytes name the dictionary by its Adler-32 checksum: 0xe3c6a7c2 is SPDY/3's.
    #[test]
    fn the_stream_begins_with_the_dictionarys_checksum() {
        let block = Compressor::new().unwrap().compress(&Headers::new().to_block()).unwrap();
        assert_eq!(block[2..6], [0xe3, 0xc6, 0xa7, 0xc2]);
    }

    #[test]
    fn a_bomb_goes_off_at_the_limit() {
        let bomb = Compressor::new().unwrap().compress(&vec![0; 8 << 20]).unwrap();
        assert!(bomb.len() < 1 << 16);
        let error = Decompressor::new(1 << 16).decompress(&bomb);
        assert_eq!(error, Err(CompressionError::TooLarge { max: 1 << 16 }));
    }

    #[test]
    fn refuses_what_is_not_such_a_stream() {
        let plain = {
            let mut output = Vec::with_capacity(64);
            let mut other = Compress::new(Compression::fast(), true);
            other.set_dictionary(b"another dictionary").unwrap();
            other.compress_vec(&[0; 4], &mut output, FlushCompress::Sync).unwrap();
            output
        };
        let ended = {
            let mut output = Vec::with_capacity(64);
            Compress::new(Compression::fast(), true)
                .compress_vec(&[0; 4], &mut output, FlushCompress::Finish)
                .unwrap();
            output
        };
        let table: [(&str, &[u8]); 4] = [
            ("noise", b"no zlib at all"),
            ("another dictionary", &plain),
            ("the end of the stream", &ended),
            ("gzip", &[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3]),
        ];
        for (what, block) in table {
            assert_eq!(Decompressor::new(1024).decompress(block), Err(CompressionError::Corrupt), "{what}");
        }
    }
}
