//! Which processors and memory nodes of the host the pod's processes may use.

use std::{fs, io, path::Path};

use a3s_box_proto::id_set::IdSet;

use super::Cgroup;

/// Processors and memory nodes; none stands for all that the parent has.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cpuset {
    /// Processors.
    pub cpus: Option<IdSet>,
    /// Memory nodes.
    pub mems: Option<IdSet>,
}

impl Cgroup {
    /// Keeps the pod's processes to these.
    ///
    /// # Errors
    /// The machine has no cpuset controller, or the kernel refuses: the parent's set lacks one of them.
    pub fn keep_to(&self, cpuset: &Cpuset) -> io::Result<()> {
        let has_controller = |directory: &&std::path::PathBuf| directory.join("cpuset.cpus").exists();
        let Some(directory) = self.directories.iter().find(has_controller) else {
            if *cpuset == Cpuset::default() {
                return Ok(());
            }
            let reason = "the cpuset controller is not there for the pod's cgroup";
            return Err(io::Error::new(io::ErrorKind::Unsupported, reason));
        };
        set(directory, "cpuset.cpus", cpuset.cpus.as_ref())?;
        set(directory, "cpuset.mems", cpuset.mems.as_ref())
    }
}

fn set(directory: &Path, file: &str, ids: Option<&IdSet>) -> io::Result<()> {
    let value = match ids {
        Some(ids) => ids.to_string(),
        // Version 2 takes an empty set for the parent's; version 1 lets none be empty that has processes.
        None if directory.join("cgroup.controllers").exists() => "\n".to_owned(),
        None => match directory.parent() {
            Some(parent) => fs::read_to_string(parent.join(file))?,
            None => return Ok(()),
        },
    };
    let path = directory.join(file);
    fs::write(&path, &value).map_err(|error| {
        io::Error::new(error.kind(), format!("writing {:?} to {}: {error}", value.trim(), path.display()))
    })
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    fn cgroup(root: &Path, version_2: bool) -> (Cgroup, PathBuf) {
        let directory = root.join("pod");
        fs::create_dir(&directory).unwrap();
        for (place, content) in [(root, "0-7\n"), (&directory, "")] {
            fs::write(place.join("cpuset.cpus"), content).unwrap();
            fs::write(place.join("cpuset.mems"), content.replace("-7", "")).unwrap();
        }
        if version_2 {
            fs::write(directory.join("cgroup.controllers"), "cpuset").unwrap();
        }
        (Cgroup { directories: vec![root.join("other"), directory.clone()] }, directory)
    }

    #[test]
    fn what_is_named_is_written_and_else_the_parents_holds() {
        for (version_2, all) in [(false, "0-7\n"), (true, "\n")] {
            let root = tempfile::tempdir().unwrap();
            let (cgroup, directory) = cgroup(root.path(), version_2);
            let read = |file: &str| fs::read_to_string(directory.join(file)).unwrap();
            cgroup.keep_to(&Cpuset { cpus: Some("3,1".parse().unwrap()), mems: None }).unwrap();
            assert_eq!(read("cpuset.cpus"), "1,3");
            cgroup.keep_to(&Cpuset::default()).unwrap();
            assert_eq!(read("cpuset.cpus"), all);
        }
    }

    #[test]
    fn a_machine_without_the_controller_says_so() {
        let cgroup = Cgroup::default();
        cgroup.keep_to(&Cpuset::default()).unwrap();
        let wanted = Cpuset { cpus: Some("0".parse().unwrap()), mems: None };
        assert!(cgroup.keep_to(&wanted).unwrap_err().to_string().contains("cpuset"));
    }
}
