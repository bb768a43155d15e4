//! What the store takes of its file system.

use std::{fs, io, os::unix::fs::MetadataExt, path::Path};

use super::disk::{Disk, failed};
use crate::{ImageError, Usage};

/// Unit of a file's block count, whatever its file system.
const BLOCK: u64 = 512;

impl Disk {
    /// Allocated bytes and inodes, as they are now.
    pub(crate) fn usage(&self) -> Result<Usage, ImageError> {
        Usage::of_tree(self.root()).map_err(failed("measure", self.root()))
    }
}

impl Usage {
    /// Measures a tree of ours, which is a few levels deep. What vanishes on the way is gone.
    ///
    /// # Errors
    /// A file or directory cannot be looked at.
    pub fn of_tree(root: &Path) -> io::Result<Self> {
        let mut usage = Self::default();
        usage.add(root)?;
        Ok(usage)
    }

    fn add(&mut self, path: &Path) -> io::Result<()> {
        let metadata = match fs::symlink_metadata(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            metadata => metadata?,
        };
        self.bytes += metadata.blocks() * BLOCK;
        self.inodes += 1;
        if !metadata.is_dir() {
            return Ok(());
        }
        match fs::read_dir(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            entries => entries?.try_for_each(|entry| self.add(&entry?.path())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sparse_file_counts_by_its_blocks() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("pods");
        assert_eq!(Usage::of_tree(&root).unwrap(), Usage::default());
        fs::create_dir_all(root.join("a")).unwrap();
        fs::File::create(root.join("a/scratch")).unwrap().set_len(1 << 30).unwrap();
        let usage = Usage::of_tree(&root).unwrap();
        assert_eq!(usage.inodes, 3);
        assert!(usage.bytes < 1 << 20, "{usage:?}");
    }
}
