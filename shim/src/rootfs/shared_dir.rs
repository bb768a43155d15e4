//! The pod's shared directory: all of the host that the guest can name.

use std::{
    fs::{self, DirBuilder, File},
    io,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use a3s_box_proto::{
    ports::{SHARE_LAYERS, SHARE_ROOTFS, SHARE_STREAMS, SHARE_VOLUMES},
    stream::{BULK_BYTES, BulkFile},
};
use rustix::mount::{MountPropagationFlags, UnmountFlags, mount_change, unmount};

use crate::sys::mount::{Attributes, Detached, unmount_below};

/// A shared directory. The guest sees it read-only, but for the volumes attached below it and one file of a few
/// mebibytes: it could fill the host's memory else. Places for what is attached are made in the directory behind it.
#[derive(Debug, Clone)]
pub struct SharedDir {
    seen: PathBuf,
    behind: PathBuf,
    bulk: BulkFile,
}

impl SharedDir {
    /// Makes the directory that is seen, and the one behind it. The first is a mount with shared propagation: only so does
    /// virtiofsd, in its own mount namespace, see what is attached below it later.
    ///
    /// # Errors
    /// The file system fails.
    pub fn make(seen: PathBuf, behind: PathBuf) -> io::Result<Self> {
        let mut builder = DirBuilder::new();
        builder.mode(0o755);
        builder.create(&seen)?;
        builder.create(&behind)?;
        for part in [SHARE_LAYERS, SHARE_VOLUMES, SHARE_ROOTFS] {
            builder.create(behind.join(part))?;
        }
        let (bulk, bulk_mount) = bulk_file(&seen)?;
        let shared = Self { seen, behind, bulk };
        let bulk_place = shared.place(SHARE_STREAMS.into());
        bulk_place.make_file()?;
        let tree = Detached::clone_of(&shared.behind, false)?;
        // Read-only before it is attached, or virtiofsd's copy would not be.
        tree.change(Attributes {
            set: libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV,
            propagation: libc::MS_PRIVATE,
            recursive: false,
        })?;
        tree.attach(&shared.seen)?;
        mount_change(&shared.seen, MountPropagationFlags::SHARED)?;
        bulk_mount.attach(&bulk_place.seen)?;
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

    /// The file into which the guest puts what an output has much of.
    pub fn bulk(&self) -> BulkFile {
        self.bulk.clone()
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

/// A file in memory: to read from, and as a mount of its own. The guest can fill it and cut it, and make nothing beside
/// it. `directory` is empty; for a moment the file's file system is there.
fn bulk_file(directory: &Path) -> io::Result<(BulkFile, Detached)> {
    Detached::memory(BULK_BYTES)?.attach(directory)?;
    let path = directory.join(SHARE_STREAMS);
    let made = (|| {
        let file = File::options().read(true).write(true).create_new(true).mode(0o600).open(&path)?;
        file.set_len(BULK_BYTES as u64)?;
        Ok((BulkFile::new(file), Detached::clone_of(&path, false)?))
    })();
    unmount(directory, UnmountFlags::DETACH)?;
    made
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
