//! emptyDirs in memory: kubelet mounts a tmpfs on the host for one, and the guest makes one of its own instead, which
//! is charged to the container that fills it.

use std::{
    collections::VecDeque,
    fs, io,
    os::{fd::OwnedFd, unix::fs::MetadataExt},
    path::{Path, PathBuf},
};

use a3s_box_proto::{
    agent,
    ports::{GUEST_MEMORY, HUGEPAGE_BYTES},
};
use rustix::fs::{fstat, fstatfs, major, minor};
use tracing::warn;

use super::kubelet::{Plugin, plugin};
use crate::{
    agent::{Agent, AgentError},
    sys::mount::{MountPoint, table},
};

/// statfs(2)'s number of tmpfs.
const TMPFS: i64 = 0x0102_1994;
/// That of huge pages' file system (emptyDir's medium HugePages), whose blocks are such pages.
const HUGETLBFS: i64 = 0x9584_58f6;
/// The most directories that a volume may begin with: kubelet makes one for each subPath.
const MOST_DIRECTORIES: usize = 1024;

/// A directory of an emptyDir in memory.
#[derive(Debug)]
pub struct Memory {
    /// Which file system it is of.
    device: u64,
    /// Its size, where that is limited.
    bytes: u64,
    /// The size of its huge pages; 0 where they are ordinary ones.
    hugepage: u64,
    /// Where in the volume; empty for all of it.
    path: PathBuf,
    /// Those that the host has in it, parents first, the volume itself before them.
    directories: Vec<agent::Directory>,
    /// There is more on the host than directories.
    has_files: bool,
}

/// What a directory of the host is of such a volume, if it is.
///
/// # Errors
/// The file system fails, or it is of huge pages that the guest has not got.
pub fn find(pinned: &OwnedFd, resolved: &Path) -> io::Result<Option<Memory>> {
    let file_system = fstatfs(pinned)?;
    let block = file_system.f_bsize.unsigned_abs();
    let hugepage = match file_system.f_type {
        TMPFS => 0,
        HUGETLBFS if block == HUGEPAGE_BYTES => block,
        HUGETLBFS => {
            let reason = format!("it is of huge pages of {block} bytes: the guest's have {HUGEPAGE_BYTES}");
            return Err(io::Error::new(io::ErrorKind::Unsupported, reason));
        }
        _ => return Ok(None),
    };
    let device = fstat(pinned)?.st_dev;
    let number = (major(device), minor(device));
    let points = table()?;
    let is_volume = |point: &&MountPoint| {
        point.device == number
            && point.root == Path::new("/")
            && plugin(&point.path) == Some(Plugin::EmptyDir)
    };
    let Some(volume) = points.iter().rev().find(is_volume) else { return Ok(None) };
    // A subPath is a mount of its own, of a directory of the volume.
    let holds = |point: &&MountPoint| point.device == number && resolved.starts_with(&point.path);
    let Some(holder) = points.iter().filter(holds).max_by_key(|point| point.path.components().count()) else {
        return Ok(None);
    };
    let below = resolved.strip_prefix(&holder.path).unwrap_or(Path::new(""));
    let path = holder.root.strip_prefix("/").unwrap_or(&holder.root).join(below);
    let (directories, has_files) = walk(&volume.path)?;
    let bytes = file_system.f_blocks.saturating_mul(block);
    Ok(Some(Memory { device, bytes, hugepage, path, directories, has_files }))
}

/// All directories, and whether there is anything else.
fn walk(volume: &Path) -> io::Result<(Vec<agent::Directory>, bool)> {
    let mut found = Vec::new();
    let mut waiting = VecDeque::from([PathBuf::new()]);
    while let Some(path) = waiting.pop_front() {
        let here = volume.join(&path);
        let metadata = fs::symlink_metadata(&here)?;
        found.push(agent::Directory {
            path: path.to_string_lossy().into_owned(),
            mode: metadata.mode() & 0o7777,
            uid: metadata.uid(),
            gid: metadata.gid(),
            ..Default::default()
        });
        for entry in fs::read_dir(&here)? {
            let entry = entry?;
            let is_plain = entry.file_type()?.is_dir() && entry.file_name().to_str().is_some();
            if !is_plain || found.len() + waiting.len() >= MOST_DIRECTORIES {
                return Ok((Vec::new(), true));
            }
            waiting.push_back(path.join(entry.file_name()));
        }
    }
    Ok((found, false))
}

/// The volumes in memory of a pod.
#[derive(Debug, Default)]
pub struct Memories(Vec<Known>);

#[derive(Debug)]
struct Known {
    device: u64,
    /// Its name in the guest; none for one that stays on the host, because the host had put files into it.
    name: Option<String>,
    /// Directories of it that have names of their own in the guest.
    shown: Vec<(PathBuf, String)>,
}

impl Memories {
    /// Makes a volume, or a directory of it, in the guest; answers its path there. None for one that stays on the
    /// host. `fresh` makes names that were never used.
    ///
    /// # Errors
    /// The guest cannot make it.
    pub async fn provide(
        &mut self,
        agent: &Agent,
        memory: &Memory,
        mut fresh: impl FnMut() -> String,
    ) -> Result<Option<String>, AgentError> {
        let index = match self.0.iter().position(|known| known.device == memory.device) {
            Some(index) => index,
            None => {
                if memory.has_files {
                    warn!("a volume in memory has files of the host's: it stays there");
                }
                let name = (!memory.has_files).then(&mut fresh);
                self.0.push(Known { device: memory.device, name, shown: Vec::new() });
                self.0.len() - 1
            }
        };
        let known = &mut self.0[index];
        let Some(name) = known.name.clone() else { return Ok(None) };
        let shown = known.shown_as(&memory.path, fresh);
        agent
            .provide_memory(agent::ProvideMemoryRequest {
                name: name.clone(),
                bytes: memory.bytes,
                hugepage_bytes: memory.hugepage,
                directories: memory.directories.clone(),
                path: memory.path.to_string_lossy().into_owned(),
                shown: shown.clone().unwrap_or_default(),
                ..Default::default()
            })
            .await?;
        Ok(Some(format!("{GUEST_MEMORY}/{}", shown.unwrap_or(name))))
    }
}

impl Known {
    fn shown_as(&mut self, path: &Path, fresh: impl FnOnce() -> String) -> Option<String> {
        if path.as_os_str().is_empty() {
            return None;
        }
        if let Some((_, name)) = self.shown.iter().find(|(shown, _)| shown == path) {
            return Some(name.clone());
        }
        let name = fresh();
        self.shown.push((path.to_owned(), name.clone()));
        Some(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_volume_begins_with_the_hosts_directories() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("a/b")).unwrap();
        let (found, has_files) = walk(dir.path()).unwrap();
        let paths: Vec<_> = found.iter().map(|directory| directory.path.as_str()).collect();
        assert_eq!((paths, has_files), (vec!["", "a", "a/b"], false));
        fs::write(dir.path().join("a/file"), "").unwrap();
        assert!(walk(dir.path()).unwrap().1);
    }
}
