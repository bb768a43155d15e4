//! What the store takes of its file system.

use std::{fs, io, os::unix::fs::MetadataExt, path::Path};

use super::disk::{Disk, failed};
use crate::{ImageError, Usage};

impl Disk {
    /// Allocated bytes and inodes, as they are now.
    pub(crate) fn usage(&self) -> Result<Usage, ImageError> {
        let mut usage = Usage::default();
        add(self.root(), &mut usage).map_err(failed("measure", self.root()))?;
        Ok(usage)
    }
}

/// The tree is three levels deep by construction; what vanishes on the way is gone.
fn add(path: &Path, usage: &mut Usage) -> io::Result<()> {
    let metadata = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        metadata => metadata?,
    };
    usage.bytes += metadata.blocks() * 512;
    usage.inodes += 1;
    if !metadata.is_dir() {
        return Ok(());
    }
    match fs::read_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        entries => entries?.try_for_each(|entry| add(&entry?.path(), usage)),
    }
}
