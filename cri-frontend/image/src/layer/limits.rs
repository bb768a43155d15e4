//! How much a layer may be.

use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

use a3s_box_proto::config::Images;

use super::LayerError;

/// The kernel's PATH_MAX without its NUL.
pub(super) const MAX_PATH: usize = 4095;
/// The kernel's NAME_MAX.
pub(super) const MAX_NAME: usize = 255;
/// Headers of one entry: long names, PAX records, sparse maps. Go's reader, and so containerd's, has the same bound.
pub(super) const MAX_HEADER: u64 = 1 << 20;
/// Names of entries are kept until the layer's end, and targets of links: so many bytes of each.
pub(super) const MAX_TEXT: usize = 64 << 20;
/// Extended attributes of one entry: far more than a file system with room for a few KiB of them can have.
pub(super) const MAX_XATTRS: usize = 1024;
/// Attributes of directories are kept until the layer's end: all together no more than this.
pub(super) const MAX_DIRECTORY_XATTRS: usize = 16 << 20;
/// As many symbolic links a path may lead through as containerd's `fs.RootPath` allows.
pub(super) const MAX_LINKS: usize = 255;

/// Limits from the configuration.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Bytes of the blob.
    pub compressed: u64,
    /// Bytes of the uncompressed tar stream, holes of sparse files counted.
    pub unpacked: u64,
    /// Entries, those added for missing parents counted.
    pub entries: u64,
    /// Bytes of an entry's path, with all directories.
    pub path_bytes: usize,
    /// Bytes of an extended attribute's value.
    pub xattr_bytes: usize,
    /// Processor time of the converter, and of this side; and how long the converter may keep us waiting.
    pub convert_seconds: u64,
    /// Bytes that stay free in the store's file system.
    pub keep_free: u64,
}

impl Limits {
    /// The configured ones.
    pub(crate) fn new(config: &Images) -> Self {
        let mib = |value: u64| value.saturating_mul(1 << 20);
        Self {
            compressed: mib(config.max_layer_mb),
            unpacked: mib(config.max_unpacked_layer_mb),
            entries: config.max_layer_entries,
            path_bytes: config.max_path_bytes,
            xattr_bytes: config.max_xattr_bytes,
            convert_seconds: config.max_convert_s,
            keep_free: mib(config.keep_free_mb),
        }
    }

    /// How long the converter may keep us waiting.
    pub(super) fn convert_time(self) -> Duration {
        Duration::from_secs(self.convert_seconds.min(u32::MAX.into()))
    }

    /// The converter is too slow.
    pub(super) fn time_error(self) -> LayerError {
        LayerError::Limit {
            what: "the seconds that a layer's conversion takes",
            limit: self.convert_seconds,
            key: "images.max_convert_s",
        }
    }

    /// The blob is too large.
    pub(crate) fn compressed_error(self) -> LayerError {
        LayerError::Limit {
            what: "the layer's compressed bytes",
            limit: self.compressed,
            key: "images.max_layer_mb",
        }
    }

    /// What it unpacks to is too large.
    pub(crate) fn unpacked_error(self) -> LayerError {
        LayerError::Limit {
            what: "the layer's uncompressed bytes",
            limit: self.unpacked,
            key: "images.max_unpacked_layer_mb",
        }
    }

    /// Too many entries.
    pub(crate) fn entries_error(self) -> LayerError {
        LayerError::Limit {
            what: "the layer's entries",
            limit: self.entries,
            key: "images.max_layer_entries",
        }
    }
}

/// The processor time that a layer takes of its thread. Names can be made to cost far more than they are long.
#[derive(Debug)]
pub(super) struct Effort {
    begun: Duration,
    limits: Limits,
}

impl Effort {
    /// Nothing yet.
    pub(super) fn new(limits: Limits) -> Self {
        Self { begun: thread_time(), limits }
    }

    /// Refuses more than the limit.
    pub(super) fn check(&self) -> Result<(), LayerError> {
        let spent = thread_time().saturating_sub(self.begun);
        if spent > self.limits.convert_time() { Err(self.limits.time_error()) } else { Ok(()) }
    }
}

/// What this thread has had of a processor. Every Linux has this clock.
fn thread_time() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map_or(Duration::ZERO, Duration::from)
}
