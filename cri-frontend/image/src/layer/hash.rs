//! A reader that hashes and counts what passes, and stops at a limit.

use std::io::{self, Read};

use sha2::{Digest as _, Sha256};

use super::LayerError;
use crate::digest::Digest;

/// Hashes all that is read through it.
pub(super) struct Hashing<R, F> {
    inner: R,
    hash: Sha256,
    left: u64,
    over: F,
}

impl<R: Read, F: Fn() -> LayerError> Hashing<R, F> {
    /// Reads at most `limit` bytes; one more is the error `over`.
    pub(super) fn new(inner: R, limit: u64, over: F) -> Self {
        Self { inner, hash: Sha256::new(), left: limit, over }
    }

    /// Reads what is left, and says the digest of everything.
    pub(super) fn finish(mut self) -> io::Result<Digest> {
        io::copy(&mut self, &mut io::sink())?;
        Ok(Digest::from_hash(self.hash.finalize().as_ref()))
    }
}

impl<R: Read, F: Fn() -> LayerError> Read for Hashing<R, F> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        let length = read as u64;
        if length > self.left {
            return Err((self.over)().into_io());
        }
        self.left -= length;
        self.hash.update(&buffer[..read]);
        Ok(read)
    }
}
