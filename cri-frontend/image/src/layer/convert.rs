//! The pipeline of one layer.

use std::{
    io::{self, BufWriter, Read},
    path::PathBuf,
};

use super::{
    LayerError, Limits, decompress::Decompressed, hash::Hashing, mkfs::Converter, normalise::normalise,
    output::Outcome, space::SpaceGuard, stack::Below,
};
use crate::digest::Digest;

const WRITE_BUFFER: usize = 256 << 10;

/// What is to be converted, and by what.
#[derive(Debug, Clone)]
pub(crate) struct Job {
    /// The converter's program.
    pub program: PathBuf,
    /// An empty directory for it.
    pub directory: PathBuf,
    /// How large a layer may be.
    pub limits: Limits,
    /// The blob's digest by the manifest.
    pub blob: Digest,
    /// The uncompressed blob's by the image's configuration.
    pub diff_id: Digest,
    /// The root directory is to be as it is below, unless the layer says something else.
    pub inherit_root: bool,
}

/// A layer's file.
#[derive(Debug)]
pub(crate) struct Made {
    /// The EROFS file, synced, checked and root's.
    pub file: PathBuf,
    /// Its own digest.
    pub digest: Digest,
    /// What was learned of the layer.
    pub outcome: Outcome,
}

/// Converts a blob; blocks until it is done.
pub(crate) fn convert(job: &Job, blob: impl Read, below: &mut dyn Below) -> Result<Made, LayerError> {
    let limits = job.limits;
    let mut blob = Hashing::new(blob, limits.compressed, || limits.compressed_error());
    let converted = unpack(job, &mut blob, below);
    let actual = match (&converted, blob.finish()) {
        (Ok(_) | Err(LayerError::Read(_)), Ok(actual)) => actual,
        (Ok(_), Err(error)) => return Err(LayerError::from_read(error)),
        (Err(_), _) => return converted,
    };
    // A damaged blob shows as any error of its format. That it is not what was asked for says more.
    if actual == job.blob {
        converted
    } else {
        Err(LayerError::BlobDigest { expected: job.blob.clone(), actual })
    }
}

fn unpack(job: &Job, blob: &mut impl Read, below: &mut dyn Below) -> Result<Made, LayerError> {
    let limits = job.limits;
    let stream = Decompressed::new(blob).map_err(LayerError::from_read)?;
    let mut tar = Hashing::new(stream, limits.unpacked, || limits.unpacked_error());
    let mut converter = Converter::start(&job.program, &job.directory, limits)?;
    let sink = SpaceGuard::new(converter.stdin()?, &job.directory, limits.keep_free);
    let outcome = match normalise(
        &mut tar,
        BufWriter::with_capacity(WRITE_BUFFER, sink),
        below,
        job.inherit_root,
        limits,
    ) {
        // The converter went away: it knows why.
        Err(LayerError::Read(error)) if error.kind() == io::ErrorKind::BrokenPipe => {
            converter.finish()?;
            return Err(LayerError::Converter { step: "write to", source: error });
        }
        outcome => outcome?,
    };
    let actual = tar.finish().map_err(LayerError::from_read)?;
    if actual != job.diff_id {
        return Err(LayerError::DiffId { expected: job.diff_id.clone(), actual });
    }
    let (file, digest) = converter.finish()?;
    Ok(Made { file, digest, outcome })
}
