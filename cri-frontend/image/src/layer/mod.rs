//! From a layer's blob to an EROFS file.
//!
//! `blob → sha256 → gunzip/zstd → sha256 → normalise → mkfs.erofs`: one blocking thread a layer, nothing buffered
//! beyond a few chunks.

mod attributes;
pub(crate) mod confine;
pub(crate) mod convert;
mod decompress;
mod emit;
pub(crate) mod erofs;
mod hash;
pub(crate) mod limits;
mod mkfs;
mod normalise;
mod output;
mod path;
mod pax;
mod reader;
mod resolve;
pub(crate) mod space;
mod sparse;
pub(crate) mod stack;
#[cfg(test)]
pub(crate) mod tests;
mod texts;
mod tree;

use std::{io, path::PathBuf};

use crate::digest::Digest;

pub(crate) use limits::Limits;
pub(crate) use output::Outcome;

/// Why a layer could not be made.
#[derive(Debug, thiserror::Error)]
pub enum LayerError {
    /// The stream ended early, or is no valid gzip, zstd or tar.
    #[error("cannot read the layer: {0}")]
    Read(#[source] io::Error),
    /// An entry that no honest layer has.
    #[error("entry {path:?}: {reason}")]
    Entry {
        /// The entry's name, lossily.
        path: String,
        /// What is wrong.
        reason: String,
    },
    /// More than the configuration allows.
    #[error("{what} exceed the limit of {limit} ({key})")]
    Limit {
        /// What there is too much of.
        what: &'static str,
        /// How much is allowed.
        limit: u64,
        /// The configuration's key, or "fixed".
        key: &'static str,
    },
    /// The disk is nearly full.
    #[error("the disk below {path:?} lacks {missing} bytes to keep {keep} free (images.keep_free_mb)")]
    DiskFull {
        /// The store.
        path: PathBuf,
        /// How much is missing.
        missing: u64,
        /// How much must stay free.
        keep: u64,
    },
    /// The blob is not what was asked for.
    #[error("the blob has digest {actual}, not {expected}")]
    BlobDigest {
        /// What the manifest says.
        expected: Digest,
        /// What was received.
        actual: Digest,
    },
    /// The uncompressed blob is not what the configuration says.
    #[error("the uncompressed layer has digest {actual}, and the image's configuration says {expected}")]
    DiffId {
        /// What the configuration says.
        expected: Digest,
        /// What was unpacked.
        actual: Digest,
    },
    /// The layers below could not be made, so that this one cannot be resolved against them.
    #[error("a layer below failed")]
    Lower,
    /// A stored layer cannot be read.
    #[error("cannot read the stored layer {path:?}: {source}")]
    Stored {
        /// The EROFS file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The converter cannot be run.
    #[error("cannot {step} mkfs.erofs: {source}")]
    Converter {
        /// What was being done.
        step: &'static str,
        /// The cause.
        source: io::Error,
    },
    /// The converter refused or crashed.
    #[error("mkfs.erofs ended with {status}: {message}")]
    ConverterFailed {
        /// Its exit status.
        status: String,
        /// The end of its error output.
        message: String,
    },
    /// The store's file system.
    #[error("cannot {step} {path:?}: {source}")]
    Store {
        /// What was being done.
        step: &'static str,
        /// To what.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
}

impl LayerError {
    /// An entry that is refused.
    pub(crate) fn entry(path: &[u8], reason: impl Into<String>) -> Self {
        let shown = path.get(..200).unwrap_or(path);
        Self::Entry { path: String::from_utf8_lossy(shown).into_owned(), reason: reason.into() }
    }

    /// A failed read, with a limit's error taken out of the wrapping that `Read` forces on it.
    pub(crate) fn from_read(error: io::Error) -> Self {
        match error.downcast::<Self>() {
            Ok(inner) => inner,
            Err(error) => Self::Read(error),
        }
    }

    /// For errors that must pass through `Read` and `Write`.
    pub(crate) fn into_io(self) -> io::Error {
        io::Error::other(self)
    }
}

/// For the fuzz targets: a layer above a stored one.
///
/// # Errors
/// The layer is refused, or the stored one cannot be read.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) fn fuzz_normalise(
    stream: &[u8],
    out: &mut Vec<u8>,
    unpacked: u64,
    stored: &std::path::Path,
) -> Result<Outcome, LayerError> {
    struct Stored(stack::Stack);
    impl stack::Below for Stored {
        fn stack(&mut self) -> Result<&stack::Stack, LayerError> {
            Ok(&self.0)
        }
        fn has_unusual_root(&self) -> bool {
            false
        }
        fn tell_unusual_root(&self) {}
    }
    let limits = Limits {
        compressed: u64::MAX,
        unpacked,
        entries: 10_000,
        path_bytes: 4095,
        xattr_bytes: 65_536,
        convert_seconds: 60,
        keep_free: 0,
    };
    let mut below = Stored(stack::Stack::open([(stored, false)].into_iter())?);
    normalise::normalise(stream, out, &mut below, false, limits)
}
