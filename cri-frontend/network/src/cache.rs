//! What is remembered of attachments, so that DEL works when the configuration, or the frontend, is gone.
//!
//! A record stands before the first plugin runs and until all of them have undone their work.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
};

use a3s_box_proto::ids::SandboxId;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{CniError, PodNetwork, config::NetworkConfig};

/// An ADD that was begun.
#[derive(Debug, Clone)]
pub(crate) struct Record {
    /// The network as it was then.
    pub network: NetworkConfig,
    /// The pod as it was then.
    pub pod: PodNetwork,
    /// The result, once all plugins have succeeded.
    pub result: Option<Value>,
}

/// The form on disk.
#[derive(Serialize, Deserialize)]
struct Stored {
    file: PathBuf,
    network: Value,
    pod: PodNetwork,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    result: Option<Value>,
}

/// The directory of records, one file a sandbox. Its calls block.
#[derive(Debug, Clone)]
pub(crate) struct Cache {
    dir: PathBuf,
}

impl Cache {
    /// Ours below CNI's common cache directory.
    pub fn new(cache_dir: &Path) -> Self {
        Self { dir: cache_dir.join("a3s-box") }
    }

    /// Reads a sandbox's record, if it has one.
    pub fn load(&self, sandbox: &SandboxId) -> Result<Option<Record>, CniError> {
        let path = self.path(sandbox);
        let content = match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            content => {
                content.map_err(|source| CniError::File { step: "read", path: path.clone(), source })?
            }
        };
        let unreadable = |reason| CniError::Cache { path: path.clone(), reason };
        let stored: Stored =
            serde_json::from_slice(&content).map_err(|error| unreadable(error.to_string()))?;
        let network = NetworkConfig::parse(stored.file, stored.network).map_err(unreadable)?;
        Ok(Some(Record { network, pod: stored.pod, result: stored.result }))
    }

    /// Writes a record: whole and durable, or not at all.
    pub fn store(&self, record: &Record) -> Result<(), CniError> {
        let path = self.path(&record.pod.sandbox_id);
        let stored = Stored {
            file: record.network.file.clone(),
            network: record.network.list.clone(),
            pod: record.pod.clone(),
            result: record.result.clone(),
        };
        let written = serde_json::to_vec(&stored)
            .map_err(io::Error::other)
            .and_then(|content| self.replace(&path, &content));
        written.map_err(|source| CniError::File { step: "write", path, source })
    }

    /// Forgets a record, if there is one.
    pub fn remove(&self, sandbox: &SandboxId) -> Result<(), CniError> {
        let path = self.path(sandbox);
        for file in [draft(&path), path] {
            match fs::remove_file(&file) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(CniError::File { step: "remove", path: file, source: error });
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn replace(&self, path: &Path, content: &[u8]) -> io::Result<()> {
        fs::create_dir_all(&self.dir)?;
        let draft = draft(path);
        let mut file = File::create(&draft)?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&draft, path)?;
        // The new name must survive a power cut as well.
        File::open(&self.dir)?.sync_all()
    }

    fn path(&self, sandbox: &SandboxId) -> PathBuf {
        self.dir.join(format!("{sandbox}.json"))
    }
}

/// A fixed name, so that a crash leaves one draft at most, which the next write replaces and removal removes.
fn draft(path: &Path) -> PathBuf {
    path.with_extension("json.new")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::pod::tests::pod;

    fn record(result: Option<Value>) -> Record {
        let list = json!({"name": "n", "cniVersion": "1.0.0", "plugins": [{"type": "a", "x": 1}]});
        let network = NetworkConfig::parse("/etc/x.conflist".into(), list).unwrap();
        Record { network, pod: pod("/run/netns/x"), result }
    }

    #[test]
    fn a_record_survives_the_way_to_disk_and_back() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::new(dir.path());
        let sandbox = record(None).pod.sandbox_id;
        assert!(cache.load(&sandbox).unwrap().is_none());
        for result in [None, Some(json!({"ips": []}))] {
            let record = record(result);
            cache.store(&record).unwrap();
            let loaded = cache.load(&sandbox).unwrap().unwrap();
            assert_eq!(loaded.network, record.network);
            assert_eq!((loaded.pod, loaded.result), (record.pod, record.result));
        }
        fs::write(draft(&cache.path(&sandbox)), "torn").unwrap();
        cache.remove(&sandbox).unwrap();
        cache.remove(&sandbox).unwrap();
        assert_eq!(fs::read_dir(&cache.dir).unwrap().count(), 0);
    }

    #[test]
    fn a_torn_record_is_an_error_and_not_an_absent_one() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::new(dir.path());
        let record = record(None);
        cache.store(&record).unwrap();
        let path = cache.path(&record.pod.sandbox_id);
        let content = fs::read(&path).unwrap();
        for length in 0..content.len() {
            fs::write(&path, &content[..length]).unwrap();
            assert!(cache.load(&record.pod.sandbox_id).is_err(), "torn after {length} bytes");
        }
    }
}
