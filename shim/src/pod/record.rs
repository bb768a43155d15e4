//! What a dead shim leaves behind, written down beforehand: read by `delete`.

use std::{fs, io, path::Path};

use serde::{Deserialize, Serialize};

use crate::{cgroup::Cgroup, sys::process::Identity};

/// The pod's processes, its cgroup, and the user id it claimed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The shim first.
    pub processes: Vec<Identity>,
    /// Where they all are.
    pub cgroup: Cgroup,
    /// The user id of VMM and vsock backend.
    pub uid: Option<u32>,
}

impl Record {
    /// Replaces the file. It lies in a directory that no reboot survives, so it need not reach a disk.
    ///
    /// # Errors
    /// The file system fails.
    pub fn write(&self, path: &Path) -> io::Result<()> {
        let temporary = path.with_extension("tmp");
        fs::write(&temporary, serde_json::to_vec(self)?)?;
        fs::rename(temporary, path)
    }

    /// Reads the file; `None` where there is none, or none that can be understood.
    pub fn read(path: &Path) -> Option<Self> {
        serde_json::from_slice(&fs::read(path).ok()?).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_comes_back_and_a_torn_one_is_none() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("record.json");
        assert_eq!(Record::read(&path), None);
        let record = Record {
            processes: vec![Identity { pid: 7, started: 99 }],
            uid: Some(2_000_000_000),
            ..Record::default()
        };
        record.write(&path).unwrap();
        assert_eq!(Record::read(&path), Some(record));
        fs::write(&path, "{\"processes\":[{\"pid\":7").unwrap();
        assert_eq!(Record::read(&path), None);
    }
}
