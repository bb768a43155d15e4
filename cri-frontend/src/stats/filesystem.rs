//! What the pods' scratch disks take of the node's file system.

use std::{fs, io, os::unix::fs::MetadataExt, path::PathBuf};

use tokio::task::spawn_blocking;

use crate::{error::Error, node::Node};

/// Unit of a file's block count, whatever its file system.
const BLOCK: u64 = 512;

/// Allocated bytes and inodes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Bytes on disk; a sparse file has fewer than its length.
    pub bytes: u64,
    /// Files and directories.
    pub inodes: u64,
}

/// The scratch disks of all pods.
pub async fn of_pods(node: &Node) -> Result<Usage, Error> {
    let root = node.config.root_dir.join("pods");
    let shown = root.clone();
    match spawn_blocking(move || walk(root)).await {
        Ok(usage) => usage.map_err(Error::file("measure", shown)),
        Err(ended) => Err(Error::Abandoned(ended.to_string())),
    }
}

fn walk(root: PathBuf) -> io::Result<Usage> {
    let mut usage = Usage::default();
    let mut pending = vec![root];
    while let Some(path) = pending.pop() {
        // A pod may be removed meanwhile.
        let file = match fs::symlink_metadata(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        usage.bytes += file.blocks() * BLOCK;
        usage.inodes += 1;
        if file.is_dir() {
            match fs::read_dir(&path) {
                Ok(entries) => pending.extend(entries.filter_map(Result::ok).map(|entry| entry.path())),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(usage)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sparse_disk_counts_by_its_blocks() {
        let dir = tempfile::tempdir().unwrap();
        let pods = dir.path().join("pods");
        assert_eq!(walk(pods.clone()).unwrap(), Usage::default());
        fs::create_dir_all(pods.join("a")).unwrap();
        fs::File::create(pods.join("a/scratch")).unwrap().set_len(1 << 30).unwrap();
        let usage = walk(pods).unwrap();
        assert_eq!(usage.inodes, 3);
        assert!(usage.bytes < 1 << 20, "{usage:?}");
    }
}
