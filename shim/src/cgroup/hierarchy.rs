//! One hierarchy of the machine: version 2's, or one of version 1's.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use tracing::debug;

use crate::sys::mount::{self, MountPoint};

/// A mounted hierarchy.
#[derive(Debug)]
pub(super) struct Hierarchy {
    /// Where it is mounted.
    pub root: PathBuf,
    /// Version 1: its controllers, as `/proc/self/cgroup` names them. Version 2: empty.
    controllers: String,
}

/// All hierarchies that are mounted.
pub(super) fn all() -> io::Result<Vec<Hierarchy>> {
    Ok(mount::table()?.iter().filter_map(Hierarchy::of).collect())
}

impl Hierarchy {
    fn of(point: &MountPoint) -> Option<Self> {
        let controllers = match point.kind.as_str() {
            "cgroup2" => String::new(),
            "cgroup" => {
                let is_controller = |option: &&str| {
                    !matches!(*option, "rw" | "ro" | "xattr" | "noprefix" | "clone_children")
                        && !option.starts_with("release_agent=")
                };
                point.options.split(',').filter(is_controller).collect::<Vec<_>>().join(",")
            }
            _ => return None,
        };
        Some(Self { root: point.path.clone(), controllers })
    }

    /// Whether a line of `/proc/self/cgroup` speaks of this hierarchy.
    pub fn is_named_in(&self, line: &str) -> bool {
        line.split(':').nth(1) == Some(self.controllers.as_str())
    }

    /// Makes the cgroup and moves this process there.
    pub fn join(&self, path: &Path) -> io::Result<PathBuf> {
        let directory = self.root.join(path);
        fs::create_dir_all(&directory)?;
        if self.controllers.is_empty() {
            self.enable_controllers(path);
        }
        if let Err(error) = self.enter(path, &directory) {
            // Not ours to use: nothing may be left behind.
            let _ = fs::remove_dir(&directory);
            return Err(error);
        }
        Ok(directory)
    }

    fn enter(&self, path: &Path, directory: &Path) -> io::Result<()> {
        if self.controllers.split(',').any(|controller| controller == "cpuset") {
            self.inherit_cpuset(path)?;
        }
        fs::write(directory.join("cgroup.procs"), "0")
    }

    /// Version 2 gives a cgroup only the controllers that all above it hand on. One that cannot be had is missed where
    /// it is needed.
    fn enable_controllers(&self, path: &Path) {
        let mut directory = self.root.clone();
        for component in path {
            let available = fs::read_to_string(directory.join("cgroup.controllers")).unwrap_or_default();
            for controller in available.split_ascii_whitespace() {
                // One at a time: the kernel takes all of a list or none.
                let written = fs::write(directory.join("cgroup.subtree_control"), format!("+{controller}"));
                if let Err(error) = written {
                    debug!(cgroup = %directory.display(), controller, %error, "is not handed on");
                }
            }
            directory.push(component);
        }
    }

    /// Version 1 lets no process into a cgroup whose processors and memory nodes were never set.
    fn inherit_cpuset(&self, path: &Path) -> io::Result<()> {
        let mut directory = self.root.clone();
        for component in path {
            let child = directory.join(component);
            for file in ["cpuset.cpus", "cpuset.mems"] {
                if fs::read_to_string(child.join(file))?.trim().is_empty() {
                    fs::write(child.join(file), fs::read_to_string(directory.join(file))?)?;
                }
            }
            directory = child;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_2_hands_on_all_controllers_down_to_the_parent() {
        let root = tempfile::tempdir().unwrap();
        let parent = root.path().join("kubepods");
        fs::create_dir(&parent).unwrap();
        for directory in [root.path(), &parent] {
            fs::write(directory.join("cgroup.controllers"), "cpuset memory\n").unwrap();
        }
        let hierarchy = Hierarchy { root: root.path().to_owned(), controllers: String::new() };
        hierarchy.join(Path::new("kubepods/a3s-p1")).unwrap();
        for directory in [root.path(), &parent] {
            assert_eq!(fs::read_to_string(directory.join("cgroup.subtree_control")).unwrap(), "+memory");
        }
        assert!(!parent.join("a3s-p1/cgroup.subtree_control").exists(), "processes are to live there");
    }

    #[test]
    fn a_cgroup_that_cannot_be_entered_is_not_left_behind() {
        let root = tempfile::tempdir().unwrap();
        let hierarchy = Hierarchy { root: root.path().to_owned(), controllers: "cpuset".into() };
        // Its file system has no processors to inherit.
        hierarchy.join(Path::new("a3s-p1")).unwrap_err();
        assert!(!root.path().join("a3s-p1").exists());
    }

    fn hierarchy(kind: &str, options: &str) -> Option<Hierarchy> {
        Hierarchy::of(&MountPoint {
            id: 1,
            path: "/c".into(),
            root: "/".into(),
            device: (0, 30),
            kind: kind.into(),
            options: options.into(),
        })
    }

    #[test]
    fn hierarchies_are_told_by_their_mounts() {
        let joint = hierarchy("cgroup", "rw,cpu,cpuacct").unwrap();
        assert!(joint.is_named_in("4:cpu,cpuacct:/x") && !joint.is_named_in("0::/x"));
        let named = hierarchy("cgroup", "rw,xattr,release_agent=/a,name=systemd").unwrap();
        assert!(named.is_named_in("1:name=systemd:/init.scope"));
        assert!(hierarchy("cgroup2", "rw").unwrap().is_named_in("0::/"));
        assert!(hierarchy("tmpfs", "rw").is_none());
    }
}
