//! The pod's scratch disk: the writable layers, each a quota project of its own, so that their sizes are exact.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
};

use a3s_box_proto::ids::ContainerId;
use nix::{
    errno::Errno,
    mount::{MntFlags, MsFlags, umount2},
    sys::statvfs::statvfs,
};

use crate::{
    error::{Failed, Step},
    init::mounts::mount_one,
    paths,
    sys::quota::{self, Usage},
};

/// The first virtio block device.
const DISK: &str = "/dev/vda";
/// Nobody mounts the disk again after the guest's end, however that comes. So blocks need not be marked as unwritten until their
/// content is there, and a file that replaces another one need not be on the disk before it has its name.
const OPTIONS: &str = "prjquota,dioread_lock,noauto_da_alloc";

/// What writable layers lie on.
#[derive(Debug)]
pub struct Scratch {
    medium: Medium,
    /// Projects and pieces of rubbish are numbered; a number is never used again.
    next: AtomicU32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Medium {
    Disk,
    /// A tmpfs for each layer: it counts by itself.
    Memory,
    None,
}

/// A container's own writable layer.
#[derive(Debug, Clone)]
pub struct WritableLayer {
    directory: PathBuf,
    medium: Medium,
    project: u32,
}

impl WritableLayer {
    /// What the overlay writes into.
    pub fn upper(&self) -> PathBuf {
        self.directory.join("upper")
    }

    /// Where the overlay prepares its writes.
    pub fn work(&self) -> PathBuf {
        self.directory.join("work")
    }

    /// Bytes and inodes.
    pub fn usage(&self) -> Result<Usage, Failed> {
        let step = || format!("read the usage of {}", self.directory.display());
        let figures = statvfs(&self.directory).step(step)?;
        let whole = Usage {
            bytes: (figures.blocks() - figures.blocks_free()) * figures.fragment_size(),
            inodes: figures.files() - figures.files_free(),
            bytes_in_all: figures.blocks() * figures.fragment_size(),
            inodes_in_all: figures.files(),
            inodes_free: figures.files_free(),
        };
        if self.medium == Medium::Memory {
            return Ok(whole);
        }
        let directory = File::open(&self.directory).step(step)?;
        let own = quota::project_usage(&directory, self.project).step(step)?;
        Ok(Usage { bytes: own.bytes, inodes: own.inodes, ..whole })
    }
}

impl Scratch {
    /// The disk, or memory where there is none and that is allowed. Nothing is mounted yet.
    pub fn find(in_memory: bool) -> Self {
        let medium = if Path::new(DISK).exists() {
            Medium::Disk
        } else if in_memory {
            Medium::Memory
        } else {
            Medium::None
        };
        Self { medium, next: AtomicU32::new(1) }
    }

    /// Mounts it. To be called once, before there is a writable layer.
    pub fn mount(&self) -> Result<(), Failed> {
        let target = Path::new(paths::SCRATCH);
        match self.medium {
            Medium::Disk => mount_one(DISK, target, "ext4", MsFlags::MS_NOATIME, OPTIONS)?,
            Medium::Memory => {
                mount_one("scratch", target, "tmpfs", MsFlags::MS_NOATIME, "mode=0700")?;
                // What is mounted in it later is seen by the layers' namespace too.
                mount_one("none", target, "none", MsFlags::MS_SHARED, "")?;
            }
            Medium::None => {}
        }
        if self.medium != Medium::None {
            for path in [containers(), trash()] {
                fs::create_dir_all(&path).step(|| format!("create {}", path.display()))?;
            }
        }
        Ok(())
    }

    /// Where discarded layers lie until somebody removes them, if there is a disk.
    pub fn trash(&self) -> Option<PathBuf> {
        (self.medium == Medium::Disk).then(trash)
    }

    /// An empty writable layer.
    pub fn writable_layer(&self, id: &ContainerId) -> Result<WritableLayer, Failed> {
        let step = || "make a writable layer".to_owned();
        if self.medium == Medium::None {
            return Err(Failed::because(step(), "the VM has no scratch disk"));
        }
        let directory = containers().join(id.as_str());
        let project = self.next.fetch_add(1, Ordering::Relaxed);
        let layer = WritableLayer { directory, medium: self.medium, project };
        if let Err(error) = self.fill(&layer) {
            let _ = self.discard(&layer);
            return Err(error).step(step);
        }
        Ok(layer)
    }

    fn fill(&self, layer: &WritableLayer) -> io::Result<()> {
        fs::create_dir(&layer.directory)?;
        if self.medium == Medium::Memory {
            nix::mount::mount(
                Some("scratch"),
                &layer.directory,
                Some("tmpfs"),
                MsFlags::MS_NOATIME,
                Some("mode=0700"),
            )?;
        } else {
            // Inherited by all that is made below: the overlay renames from work to upper, which ext4 refuses
            // between projects.
            quota::set_project(&File::open(&layer.directory)?, layer.project)?;
        }
        fs::create_dir(layer.upper())?;
        fs::create_dir(layer.work())
    }

    /// Puts a layer into the trash, or removes it at once if it is in memory. One that is gone is discarded.
    pub fn discard(&self, layer: &WritableLayer) -> Result<(), Failed> {
        let step = || format!("discard {}", layer.directory.display());
        if self.medium == Medium::Memory {
            return match umount2(&layer.directory, MntFlags::MNT_DETACH) {
                Ok(()) | Err(Errno::EINVAL | Errno::ENOENT) => {
                    gone(fs::remove_dir(&layer.directory)).step(step)
                }
                Err(error) => Err(error).step(step),
            };
        }
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        gone(fs::rename(&layer.directory, trash().join(number.to_string()))).step(step)
    }
}

/// What is not there need not go.
fn gone(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

fn containers() -> PathBuf {
    Path::new(paths::SCRATCH).join("containers")
}

fn trash() -> PathBuf {
    Path::new(paths::SCRATCH).join("trash")
}
