//! Looking into a container's root filesystem as the container itself would see it: a symbolic link of the image
//! leads to somewhere in the image, never into the guest.

use std::{
    fs::File,
    io::Read,
    os::fd::{AsRawFd, OwnedFd},
    path::{Component, Path, PathBuf},
};

use nix::{
    errno::Errno,
    fcntl::{OFlag, OpenHow, ResolveFlag, openat2},
    sys::stat::{Mode, mkdirat},
};

use crate::error::{Failed, Step};

/// A container's root.
#[derive(Debug)]
pub struct Root(OwnedFd);

impl Root {
    /// Opens it.
    pub fn open(path: &Path) -> Result<Self, Failed> {
        let root = File::open(path).step(|| format!("open {}", path.display()))?;
        Ok(Self(root.into()))
    }

    fn open_inside(&self, path: &Path, flags: OFlag) -> Result<OwnedFd, Errno> {
        let how = OpenHow::new()
            .flags(flags | OFlag::O_CLOEXEC)
            .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
        openat2(&self.0, path, how)
    }

    /// The text of a regular file; empty if there is none. More than `limit` bytes are refused.
    pub fn read(&self, path: &str, limit: u64) -> Result<String, Failed> {
        let step = || format!("read the container's {path}");
        // Without blocking: the file could be a FIFO.
        let file = match self.open_inside(Path::new(path), OFlag::O_RDONLY | OFlag::O_NONBLOCK) {
            Ok(file) => File::from(file),
            Err(Errno::ENOENT | Errno::ENOTDIR) => return Ok(String::new()),
            Err(error) => return Err(error).step(step),
        };
        if !file.metadata().step(step)?.is_file() {
            return Err(Failed::because(step(), "it is not a regular file"));
        }
        let mut bytes = Vec::new();
        file.take(limit + 1).read_to_end(&mut bytes).step(step)?;
        if bytes.len() as u64 > limit {
            return Err(Failed::because(step(), format!("it is longer than {limit} bytes")));
        }
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Where a directory truly is. Unlike for a container's own paths, a link that leads out of the root is an error,
    /// also one that is absolute: as containerd resolves the sub path of an image volume.
    pub fn directory_beneath(&self, path: &Path) -> Result<PathBuf, Failed> {
        let step = || format!("ImageVolumeMountFailed: open directory {} of the image", path.display());
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let resolve = ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_MAGICLINKS;
        let how = OpenHow::new().flags(flags).resolve(resolve);
        let directory = openat2(&self.0, path, how).step(step)?;
        std::fs::read_link(format!("/proc/self/fd/{}", directory.as_raw_fd())).step(step)
    }

    /// Makes a directory with its parents, as runc does for a working directory that an image lacks.
    pub fn create_directories(&self, path: &Path) -> Result<(), Failed> {
        let step = || format!("create {} in the container", path.display());
        if self.open_inside(path, OFlag::O_PATH | OFlag::O_DIRECTORY).is_ok() {
            return Ok(());
        }
        let mut done = PathBuf::from("/");
        for component in path.components() {
            if let Component::Normal(name) = component {
                let parent = self.open_inside(&done, OFlag::O_PATH | OFlag::O_DIRECTORY).step(step)?;
                match mkdirat(&parent, name, Mode::from_bits_truncate(0o755)) {
                    Ok(()) | Err(Errno::EEXIST) => {}
                    Err(error) => return Err(error).step(step),
                }
            }
            // With `..`: what that leads to, a link before it decides.
            done.push(component);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_of_an_image_stay_in_the_image() {
        let image = tempfile::tempdir().unwrap();
        let root = Root::open(image.path()).unwrap();
        std::fs::create_dir(image.path().join("etc")).unwrap();
        std::os::unix::fs::symlink("/etc/shadow", image.path().join("etc/passwd")).unwrap();
        assert_eq!(root.read("/etc/passwd", 100).unwrap(), "");
        std::fs::write(image.path().join("etc/shadow"), "inside").unwrap();
        assert_eq!(root.read("/etc/passwd", 100).unwrap(), "inside");
        assert!(root.read("/etc/passwd", 3).is_err());
        assert!(root.read("/etc", 3).is_err());

        std::os::unix::fs::symlink("/../../outside", image.path().join("work")).unwrap();
        assert!(root.create_directories(Path::new("/work/a")).is_err());
        root.create_directories(Path::new("/a/../b/c")).unwrap();
        assert!(image.path().join("b/c").is_dir());
        assert!(!image.path().join("a/b").exists());
        std::os::unix::fs::symlink("/b/c", image.path().join("link")).unwrap();
        root.create_directories(Path::new("/link/../d")).unwrap();
        assert!(image.path().join("b/d").is_dir());
        root.create_directories(Path::new("/../../e")).unwrap();
        assert!(image.path().join("e").is_dir());
    }

    #[test]
    fn a_directory_of_an_image_is_in_the_image() {
        let image = tempfile::tempdir().unwrap();
        let at = image.path().canonicalize().unwrap();
        std::fs::create_dir_all(at.join("a/b")).unwrap();
        std::fs::write(at.join("file"), "").unwrap();
        for (link, target) in [("inside", "a/b"), ("out", "../.."), ("absolute", "/a"), ("proc", "/proc")] {
            std::os::unix::fs::symlink(target, at.join(link)).unwrap();
        }
        let root = Root::open(&at).unwrap();
        for path in ["a/b", "a/../a/b", "inside"] {
            assert_eq!(root.directory_beneath(Path::new(path)).unwrap(), at.join("a/b"));
        }
        for path in ["out", "a/../..", "absolute", "proc/self", "file", "missing", "/a"] {
            assert!(root.directory_beneath(Path::new(path)).is_err(), "{path}");
        }
    }
}
