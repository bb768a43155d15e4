//! The pod's shared directory: all of the host that the guest can name.

use std::{
    fs::{self, DirBuilder, File},
    io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

use a3s_box_proto::ports::{SHARE_LAYERS, SHARE_ROOTFS, SHARE_VOLUMES};
use rustix::mount::{MountPropagationFlags, UnmountFlags, mount_change};

use crate::sys::mount::{Attributes, Detached, unmount_below};

/// A shared directory. The guest sees it read-only, but for the volumes attached below it: it could fill the host's
/// memory else. Places for what is attached are made in the directory behind it.
#[derive(Debug, Clone)]
pub struct SharedDir {
    seen: PathBuf,
    behind: PathBuf,
}

impl SharedDir {
    /// Makes the directory. It is a mount with shared propagation: only so does virtiofsd, in its own mount
    /// namespace, see what is attached below it later.
    ///
    /// # Errors
    /// The file system fails.
    pub fn make(path: &Path) -> io::Result<Self> {
        let shared = Self { seen: path.to_owned(), behind: path.with_extension("places") };
        let mut builder = DirBuilder::new();
        builder.mode(0o755);
        builder.create(&shared.seen)?;
        builder.create(&shared.behind)?;
        for part in [SHARE_LAYERS, SHARE_VOLUMES, SHARE_ROOTFS] {
            builder.create(shared.behind.join(part))?;
        }
        let tree = Detached::clone_of(&shared.behind, false)?;
        // Read-only before it is attached, or virtiofsd's copy would not be.
        tree.change(Attributes {
            set: libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV,
            propagation: libc::MS_PRIVATE,
            recursive: false,
        })?;
        tree.attach(&shared.seen)?;
        mount_change(&shared.seen, MountPropagationFlags::SHARED)?;
        Ok(shared)
    }

    /// A place for a layer's file.
    pub fn layer(&self, name: &str) -> Place {
        self.place(Path::new(SHARE_LAYERS).join(name))
    }

    /// A place for a volume.
    pub fn volume(&self, name: &str) -> Place {
        self.place(Path::new(SHARE_VOLUMES).join(name))
    }

    /// A place for a root filesystem that the host mounts.
    pub fn rootfs(&self, container: &str) -> Place {
        self.place(Path::new(SHARE_ROOTFS).join(container))
    }

    fn place(&self, below: PathBuf) -> Place {
        Place { seen: self.seen.join(&below), behind: self.behind.join(below) }
    }

    /// Takes everything away, after the VM has ended: nobody can write through a mount that was detached.
    ///
    /// # Errors
    /// A mount or a file stays.
    pub fn remove(self) -> io::Result<()> {
        unmount_below(&self.seen, UnmountFlags::DETACH)?;
        fs::remove_dir(&self.seen)?;
        // Empty files and directories; nothing was ever mounted in this one.
        fs::remove_dir_all(&self.behind)
    }
}

/// Where something is, or will be, attached in the shared directory.
#[derive(Debug, Clone)]
pub struct Place {
    /// Where it is attached.
    pub seen: PathBuf,
    /// The file or directory that it covers.
    pub behind: PathBuf,
}

impl Place {
    /// Makes an empty directory.
    ///
    /// # Errors
    /// It exists, or the file system fails.
    pub fn make_directory(&self) -> io::Result<()> {
        DirBuilder::new().mode(0o755).create(&self.behind)
    }

    /// Makes an empty file.
    ///
    /// # Errors
    /// It exists, or the file system fails.
    pub fn make_file(&self) -> io::Result<()> {
        File::create_new(&self.behind).map(drop)
    }
}
