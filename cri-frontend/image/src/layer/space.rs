//! Room on the store's disk.

use std::{
    io::{self, Write},
    path::Path,
};

use nix::sys::statvfs::statvfs;

use super::LayerError;

/// Free space is looked at after every so many bytes.
const STEP: u64 = 32 << 20;

/// Refuses to fill the disk.
pub(crate) fn check_space(path: &Path, needed: u64, keep: u64) -> Result<(), LayerError> {
    let stat = statvfs(path).map_err(|errno| LayerError::Store {
        step: "ask for the free space below",
        path: path.to_owned(),
        source: errno.into(),
    })?;
    let free = stat.blocks_available().saturating_mul(stat.fragment_size());
    let missing = needed.saturating_add(keep).saturating_sub(free);
    if missing == 0 { Ok(()) } else { Err(LayerError::DiskFull { path: path.to_owned(), missing, keep }) }
}

/// Passes on what is written, as long as there is room.
pub(super) struct SpaceGuard<'a, W> {
    inner: W,
    path: &'a Path,
    keep: u64,
    unchecked: u64,
}

impl<'a, W> SpaceGuard<'a, W> {
    /// Leaves `keep` bytes free below a path.
    pub(super) fn new(inner: W, path: &'a Path, keep: u64) -> Self {
        Self { inner, path, keep, unchecked: 0 }
    }
}

impl<W: Write> Write for SpaceGuard<'_, W> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        if self.unchecked >= STEP {
            check_space(self.path, 0, self.keep).map_err(LayerError::into_io)?;
            self.unchecked = 0;
        }
        let written = self.inner.write(buffer)?;
        self.unchecked += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}
