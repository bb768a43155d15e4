//! Volumes that kubelet swaps while a pod runs, copied into the guest: virtio-fs carries no events, and programs watch
//! these volumes. The guest copies from the share; here is told when.

use std::{
    fs, io,
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use a3s_box_proto::config;
use rustix::{
    fs::inotify::{CreateFlags, WatchFlags, add_watch, init},
    io::read,
};
use tokio::{
    io::{Interest, unix::AsyncFd},
    task::AbortHandle,
    time::sleep,
};
use tracing::warn;

use crate::{agent::Agent, sys::thread::blocking};

/// The link that a swap renames.
const DATA: &str = "..data";
/// Where the kernel watches no more directories for this user, and after a copy that failed.
const POLL: Duration = Duration::from_secs(1);
/// A copy that meets the next swap begins anew.
const ATTEMPTS: usize = 3;

/// How much of a volume is copied into the guest's memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    bytes: u64,
    entries: u64,
}

impl From<&config::Volumes> for Limits {
    fn from(config: &config::Volumes) -> Self {
        Self { bytes: config.mirror_kb.saturating_mul(1024), entries: config.mirror_entries }
    }
}

/// Whether a directory is written by kubelet's AtomicWriter, and small enough.
///
/// # Errors
/// The file system fails.
pub fn is_possible(directory: &Path, limits: Limits) -> io::Result<bool> {
    let Ok(data) = current(directory) else { return Ok(false) };
    let mut left = limits;
    fits(&directory.join(data), &mut left)
}

fn fits(directory: &Path, left: &mut Limits) -> io::Result<bool> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        let bytes = if metadata.is_file() { metadata.len() } else { 0 };
        let (Some(entries), Some(bytes)) = (left.entries.checked_sub(1), left.bytes.checked_sub(bytes))
        else {
            return Ok(false);
        };
        *left = Limits { bytes, entries };
        if metadata.is_dir() && !fits(&entry.path(), left)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Where `..data` leads to: a directory beside it.
fn current(directory: &Path) -> io::Result<String> {
    let target = fs::read_link(directory.join(DATA))?;
    match target.to_str() {
        Some(name) if name.starts_with("..") && name.len() > 2 && !name.contains('/') => Ok(name.to_owned()),
        _ => Err(io::Error::other(format!("{DATA} leads to {}", target.display()))),
    }
}

/// A volume that the guest has a copy of; dropped, it is not followed any more.
#[derive(Debug)]
pub struct Mirror(AbortHandle);

impl Drop for Mirror {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// What is copied.
#[derive(Debug, Clone)]
pub struct Source {
    /// Its name in the share, and in the guest.
    pub name: String,
    /// Where it is attached.
    pub directory: PathBuf,
    /// The most that is copied.
    pub limits: Limits,
}

impl Mirror {
    /// Copies a volume into the guest, and follows its changes from then on.
    ///
    /// # Errors
    /// It cannot be read, or the guest cannot copy it.
    pub async fn begin(agent: Arc<Agent>, source: Source) -> io::Result<Self> {
        let changes = Changes::of(&source.directory);
        let seen = replay(&agent, &source).await?;
        Ok(Self(tokio::spawn(follow(agent, source, changes, seen)).abort_handle()))
    }
}

async fn follow(agent: Arc<Agent>, source: Source, changes: Changes, mut seen: String) {
    let mut failed = String::new();
    loop {
        let directory = source.directory.clone();
        match blocking(move || current(&directory)).await {
            Ok(now) if now == seen => changes.next().await,
            Ok(now) => match replay(&agent, &source).await {
                Ok(copied) => seen = copied,
                Err(error) => {
                    if failed != now {
                        warn!(volume = source.name, data = now, %error, "the guest keeps the volume's old content");
                        failed = now;
                    }
                    sleep(POLL).await;
                }
            },
            // In the middle of something that is no swap.
            Err(_) => sleep(POLL).await,
        }
    }
}

/// Lets the guest copy what is current; answers what that was.
async fn replay(agent: &Agent, source: &Source) -> io::Result<String> {
    let read = || {
        let directory = source.directory.clone();
        blocking(move || current(&directory))
    };
    let mut data = read().await?;
    for _ in 0..ATTEMPTS {
        let Limits { bytes, entries } = source.limits;
        let Err(error) = agent.mirror_volume(&source.name, &data, bytes, entries).await else {
            return Ok(data);
        };
        let now = read().await?;
        if now == data {
            return Err(io::Error::other(error));
        }
        data = now;
    }
    Err(io::Error::other("it changes faster than it is copied"))
}

/// Renames in a directory.
#[derive(Debug)]
struct Changes(Option<AsyncFd<OwnedFd>>);

impl Changes {
    fn of(directory: &Path) -> Self {
        let watched = init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC).and_then(|watch| {
            add_watch(&watch, directory, WatchFlags::MOVED_TO | WatchFlags::ONLYDIR)?;
            Ok(watch)
        });
        let watched = watched.map_err(io::Error::from).and_then(|watch| {
            // SAFETY: an `OwnedFd` is the same open descriptor as long as it lives.
            let registered = unsafe { AsyncFd::register_with_interest(watch, Interest::READABLE) };
            registered.map_err(|error| error.into_parts().1)
        });
        if let Err(error) = &watched {
            warn!(directory = %directory.display(), %error, "is looked at every second instead of watched");
        }
        Self(watched.ok())
    }

    async fn next(&self) {
        let Some(watch) = &self.0 else { return sleep(POLL).await };
        let Ok(mut ready) = watch.readable().await else { return sleep(POLL).await };
        // What happened is looked up; that something did is enough.
        let mut events = [0u8; 4096];
        while read(watch.as_fd(), &mut events).is_ok_and(|length| length > 0) {}
        ready.clear_ready();
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn only_what_an_atomic_writer_wrote_is_mirrored() {
        let dir = tempfile::tempdir().unwrap();
        let limits = Limits { bytes: 10, entries: 3 };
        let possible = || is_possible(dir.path(), limits).unwrap();
        assert!(!possible());
        fs::create_dir_all(dir.path().join("..2026_1/sub")).unwrap();
        symlink("..2026_1", dir.path().join(DATA)).unwrap();
        fs::write(dir.path().join("..2026_1/sub/key"), "0123456789").unwrap();
        assert!(possible());
        fs::write(dir.path().join("..2026_1/more"), "0").unwrap();
        assert!(!possible());
        fs::remove_file(dir.path().join(DATA)).unwrap();
        symlink("/etc", dir.path().join(DATA)).unwrap();
        assert!(!possible());
    }

    #[tokio::test]
    async fn a_swap_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let changes = Changes::of(dir.path());
        symlink("..2", dir.path().join("..data_tmp")).unwrap();
        fs::rename(dir.path().join("..data_tmp"), dir.path().join(DATA)).unwrap();
        tokio::time::timeout(Duration::from_secs(5), changes.next()).await.unwrap();
        assert_eq!(current(dir.path()).unwrap(), "..2");
    }
}
