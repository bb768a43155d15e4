//! A user id of its own for each pod's VMM, so that one that breaks out is nobody to the next.

use std::{
    fs::{self, DirBuilder, File},
    io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

use a3s_box_proto::config::Config;

use super::lock::try_lock;

/// A user id that no other pod has while this value lives: the lock on its file dies with the shim.
#[derive(Debug)]
pub struct Uid {
    number: u32,
    path: PathBuf,
    _lock: File,
}

impl Uid {
    /// Claims a free id of the configured range. The search begins at a place that depends on the pod, so that pods
    /// which start at once do not race for the same.
    ///
    /// # Errors
    /// None is free, or the directory of claims cannot be written.
    pub fn claim(config: &Config, pod: &str) -> io::Result<Self> {
        let directory = directory(config);
        DirBuilder::new().recursive(true).mode(0o700).create(&directory)?;
        let count = config.vm.uid_count;
        let start =
            pod.bytes().fold(0u32, |hash, byte| hash.wrapping_mul(31).wrapping_add(byte.into())) % count;
        for step in 0..count {
            // The configuration guarantees that the range ends below 2^32 - 1.
            let number = config.vm.uid_first + (start + step) % count;
            let path = directory.join(number.to_string());
            if let Some(lock) = try_lock(&path)? {
                return Ok(Self { number, path, _lock: lock });
            }
        }
        Err(io::Error::other(format!("all {count} user ids of vm.uid_first and vm.uid_count are taken")))
    }

    /// The id, of the user and of its group alike.
    pub fn number(&self) -> u32 {
        self.number
    }

    /// Forgets what a dead shim claimed.
    ///
    /// # Errors
    /// The directory of claims cannot be written.
    pub fn forget(config: &Config, number: u32) -> io::Result<()> {
        let path = directory(config).join(number.to_string());
        if path.exists()
            && let Some(lock) = try_lock(&path)?
        {
            drop(Self { number, path, _lock: lock });
        }
        Ok(())
    }
}

impl Drop for Uid {
    fn drop(&mut self) {
        // Removed while the lock is held: whoever waits for it sees that the file is another one.
        let _ = fs::remove_file(&self.path);
    }
}

fn directory(config: &Config) -> PathBuf {
    Path::new(&config.state_dir).join("uids")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_pods_never_share_a_uid() {
        let directory = tempfile::tempdir().unwrap();
        let mut config = Config { state_dir: directory.path().into(), ..Config::default() };
        config.vm.uid_count = 2;
        let first = Uid::claim(&config, "a").unwrap();
        let second = Uid::claim(&config, "a").unwrap();
        assert_ne!(first.number(), second.number());
        assert!(Uid::claim(&config, "b").unwrap_err().to_string().contains("vm.uid_count"));
        drop(first);
        Uid::claim(&config, "b").unwrap();
    }
}
