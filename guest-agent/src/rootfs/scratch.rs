//! The pod's scratch disk: the writable layers, each a quota project of its own, so that their sizes are exact.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
};

use a3s_box_proto::ids::ContainerId;
use nix::{
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

/// What writable layers lie on.
#[derive(Debug, Clone)]
pub struct Scratch {
    medium: Medium,
    mounted: Arc<Mutex<bool>>,
    /// Projects and pieces of rubbish are numbered; a number is never used again.
    next: Arc<AtomicU32>,
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
        Self { medium, mounted: Arc::default(), next: Arc::new(AtomicU32::new(1)) }
    }

    /// Mounts it, if that has not been done.
    pub fn mount(&self) -> Result<(), Failed> {
        let mut mounted = self.mounted.lock().unwrap_or_else(PoisonError::into_inner);
        if *mounted || self.medium == Medium::None {
            return Ok(());
        }
        if self.medium == Medium::Disk {
            let options = "prjquota,discard";
            mount_one(DISK, Path::new(paths::SCRATCH), "ext4", MsFlags::MS_NOATIME, options)?;
        }
        for directory in ["containers", "trash"] {
            let path = Path::new(paths::SCRATCH).join(directory);
            fs::create_dir_all(&path).step(|| format!("create {}", path.display()))?;
        }
        *mounted = true;
        Ok(())
    }

    /// An empty writable layer.
    pub fn writable_layer(&self, id: &ContainerId) -> Result<WritableLayer, Failed> {
        let step = || "make a writable layer".to_owned();
        if self.medium == Medium::None {
            return Err(Failed::because(step(), "the VM has no scratch disk"));
        }
        self.mount()?;
        let directory = Path::new(paths::SCRATCH).join("containers").join(id.as_str());
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

    /// Puts a layer out of the way at once and removes its files in the background: a big tree takes seconds.
    pub fn discard(&self, layer: &WritableLayer) -> Result<(), Failed> {
        let step = || format!("discard {}", layer.directory.display());
        if self.medium == Medium::Memory {
            umount2(&layer.directory, MntFlags::MNT_DETACH).step(step)?;
            return fs::remove_dir(&layer.directory).step(step);
        }
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let rubbish = Path::new(paths::SCRATCH).join("trash").join(number.to_string());
        fs::rename(&layer.directory, &rubbish).step(step)?;
        // Nobody waits for it: its only effect is free space, and its end may come with the guest's.
        tokio::task::spawn_blocking(move || {
            if let Err(error) = fs::remove_dir_all(&rubbish) {
                tracing::warn!("remove {}: {error}", rubbish.display());
            }
        });
        Ok(())
    }
}
