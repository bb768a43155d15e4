//! What is remembered of attachments, so that DEL works when the configuration, or the frontend, is gone.
//!
//! A record stands before the first plugin runs and until all of them have undone their work.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
};

use a3s_box_proto::ids::SandboxId;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;

use crate::{CniError, PodNetwork, attachment::POD_INTERFACE, config::NetworkConfig};

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

/// An attachment that stands, in the words of GC.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Valid {
    #[serde(rename = "containerID")]
    pub container: String,
    pub ifname: String,
}

/// What other runtimes of the node remember, by CNI's own library.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Foreign {
    network_name: String,
    container_id: String,
    if_name: String,
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
    foreign: PathBuf,
}

impl Cache {
    /// Ours below CNI's common cache directory.
    pub fn new(cache_dir: &Path) -> Self {
        Self { dir: cache_dir.join("a3s-box"), foreign: cache_dir.join("results") }
    }

    /// All attachments to a network that this node knows of, whoever made them.
    ///
    /// # Errors
    /// One cannot be read: it might be to this network.
    pub fn valid(&self, network: &str) -> Result<Vec<Valid>, CniError> {
        let mut valid = Vec::new();
        for path in files(&self.dir, Some("json"))? {
            let stored: Stored = read(&path)?;
            if stored.network.get("name").and_then(Value::as_str) == Some(network) {
                let container = stored.pod.sandbox_id.to_string();
                valid.push(Valid { container, ifname: POD_INTERFACE.to_owned() });
            }
        }
        for path in files(&self.foreign, None)? {
            let foreign: Foreign = read(&path)?;
            if foreign.network_name == network {
                valid.push(Valid { container: foreign.container_id, ifname: foreign.if_name });
            }
        }
        Ok(valid)
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

/// The files of a directory that may be absent, with an ending if one is given.
fn files(dir: &Path, ending: Option<&str>) -> Result<Vec<PathBuf>, CniError> {
    let failed = |source| CniError::File { step: "read the directory", path: dir.to_owned(), source };
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(failed)?,
    };
    let paths = entries.map(|entry| entry.map(|entry| entry.path())).collect::<io::Result<Vec<_>>>();
    let mut paths = paths.map_err(failed)?;
    paths.retain(|path| ending.is_none_or(|ending| path.extension().is_some_and(|own| own == ending)));
    Ok(paths)
}

fn read<T: DeserializeOwned>(path: &Path) -> Result<T, CniError> {
    let content =
        fs::read(path).map_err(|source| CniError::File { step: "read", path: path.to_owned(), source })?;
    serde_json::from_slice(&content)
        .map_err(|error| CniError::Cache { path: path.to_owned(), reason: error.to_string() })
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

    #[test]
    fn the_attachments_to_a_network_are_ours_and_those_of_others_on_the_node() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::new(dir.path());
        assert_eq!(cache.valid("n").unwrap(), []);
        cache.store(&record(None)).unwrap();
        fs::create_dir(dir.path().join("results")).unwrap();
        for network in ["n", "m"] {
            let foreign = json!({"kind": "cniCacheV1", "containerId": "c", "ifName": "net1",
                                 "networkName": network, "result": {}});
            fs::write(dir.path().join(format!("results/{network}-c-net1")), foreign.to_string()).unwrap();
        }
        let valid =
            |container: &str, ifname: &str| Valid { container: container.into(), ifname: ifname.into() };
        assert_eq!(cache.valid("n").unwrap(), [valid("0f3e", "eth0"), valid("c", "net1")]);
        assert_eq!(cache.valid("other").unwrap(), []);
        fs::write(dir.path().join("results/x"), "{").unwrap();
        assert!(cache.valid("n").is_err(), "it might be of this network");
    }
}
