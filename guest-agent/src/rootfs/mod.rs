//! Root filesystems: image layers under an overlay on the scratch disk, or a directory that the host mounted.

pub mod erofs;
pub mod image;
pub mod lookup;
pub mod namespace;
pub mod overlay;
pub mod scratch;
pub mod shared;
pub mod sweeper;

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use a3s_box_proto::ids::ContainerId;
use nix::mount::{MntFlags, umount2};

use crate::{
    error::{Failed, Step},
    paths,
    sys::quota::Usage,
};

/// What a container shall see as its root.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Wanted {
    /// File names of EROFS images, lowest first.
    Overlay(Vec<String>),
    /// A directory of the share.
    Shared(String),
}

/// A root filesystem that is mounted at `paths::rootfs`.
#[derive(Debug)]
pub enum Rootfs {
    /// With a writable layer of its own.
    Overlay(scratch::WritableLayer),
    /// The host's affair.
    Shared,
}

/// What all containers of the pod share.
#[derive(Debug)]
pub struct Storage {
    images: image::Images,
    scratch: scratch::Scratch,
    progress: Mutex<Progress>,
}

/// What has been done of the preparation: what failed is tried again, and what did not is not repeated.
#[derive(Debug, Default)]
struct Progress {
    /// The scratch disk is.
    mounted: bool,
    ready: Option<Ready>,
}

/// What there is from when the scratch disk is mounted.
#[derive(Debug, Clone)]
struct Ready {
    layers: Arc<erofs::Layers>,
    sweeper: Arc<sweeper::Sweeper>,
}

impl Storage {
    /// Nothing is mounted yet.
    pub fn new(scratch: scratch::Scratch) -> Self {
        Self { images: image::Images::default(), scratch, progress: Mutex::default() }
    }

    /// Mounts what the first container needs, before it comes, if that has not been done.
    pub fn prepare(&self) -> Result<(), Failed> {
        self.ready().map(drop)
    }

    fn ready(&self) -> Result<Ready, Failed> {
        let mut progress = self.progress();
        if let Some(ready) = &progress.ready {
            return Ok(ready.clone());
        }
        if !progress.mounted {
            self.scratch.mount()?;
            progress.mounted = true;
        }
        // After the scratch disk, which their overlays need.
        let layers = Arc::new(erofs::Layers::new()?);
        let sweeper = sweeper::Sweeper::start(Arc::clone(&layers), self.scratch.trash())?;
        Ok(progress.ready.insert(Ready { layers, sweeper: Arc::new(sweeper) }).clone())
    }

    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Mounts a root filesystem. What fails leaves nothing behind.
    pub fn mount(&self, id: &ContainerId, wanted: &Wanted) -> Result<Rootfs, Failed> {
        let target = paths::rootfs(id);
        fs::create_dir_all(&target).step(|| format!("create {}", target.display()))?;
        match wanted {
            Wanted::Shared(path) => shared::mount(path, &target).map(|()| Rootfs::Shared),
            Wanted::Overlay(names) => {
                let ready = self.ready()?;
                let writable = self.scratch.writable_layer(id)?;
                if let Err(error) = overlay::mount(&ready.layers, names, &writable, &target) {
                    self.throw_away(&writable)?;
                    return Err(error);
                }
                Ok(Rootfs::Overlay(writable))
            }
        }
    }

    /// Mounts an image; answers where the wanted directory of it is.
    pub fn image_volume(&self, volume: &image::Volume) -> Result<PathBuf, Failed> {
        image::directory(&self.images.mount(&self.ready()?.layers, &volume.layers)?, &volume.sub_path)
    }

    /// Forgets a writable layer; its files are removed later.
    pub fn discard(&self, rootfs: &Rootfs) -> Result<(), Failed> {
        match rootfs {
            Rootfs::Overlay(writable) => self.throw_away(writable),
            Rootfs::Shared => Ok(()),
        }
    }

    fn throw_away(&self, writable: &scratch::WritableLayer) -> Result<(), Failed> {
        self.scratch.discard(writable)?;
        if let Some(ready) = &self.progress().ready {
            ready.sweeper.wake();
        }
        Ok(())
    }
}

impl Rootfs {
    /// Bytes and inodes of the writable layer.
    pub fn usage(&self) -> Result<Usage, Failed> {
        match self {
            Self::Overlay(writable) => writable.usage(),
            Self::Shared => Ok(Usage::default()),
        }
    }
}

/// Unmounts a container's root filesystem; false while somebody holds it. One that is not mounted is free.
pub fn unmount(target: &Path) -> Result<bool, Failed> {
    match umount2(target, MntFlags::UMOUNT_NOFOLLOW) {
        Ok(()) | Err(nix::errno::Errno::EINVAL | nix::errno::Errno::ENOENT) => Ok(true),
        Err(nix::errno::Errno::EBUSY) => Ok(false),
        Err(error) => Err(error).step(|| format!("unmount {}", target.display())),
    }
}
