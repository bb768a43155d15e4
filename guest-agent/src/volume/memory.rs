//! Volumes in the guest's memory: charged to the container that fills them, shared by all, there until the guest ends.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use a3s_box_proto::ports::GUEST_MEMORY;
use nix::{
    errno::Errno,
    fcntl::{OFlag, OpenHow, ResolveFlag, openat, openat2},
    mount::{MntFlags, MsFlags, umount2},
    sys::stat::{Mode, fchmod, mkdirat},
    unistd::{Gid, Uid, fchown},
};

use crate::{
    error::{Failed, Step},
    init::mounts::mount_one,
    sys::mount::DetachedMount,
};

/// A volume, or a directory of one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// Its file name.
    pub name: String,
    /// What it consists of.
    pub pages: Pages,
    /// The volume itself and directories that it has at least, parents first.
    pub directories: Vec<Directory>,
    /// A directory of it, and the file name under which that appears.
    pub shown: Option<(PathBuf, String)>,
}

/// What a volume consists of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pages {
    /// Ordinary pages, so many bytes.
    Ordinary(u64),
    /// Huge pages of so many bytes each, from the pod's pool.
    Huge(u64),
}

/// A directory of a volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Directory {
    /// Where; empty for the volume itself.
    pub path: PathBuf,
    /// Permission bits.
    pub mode: u32,
    /// Its owner.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
}

/// The names that are mounted.
#[derive(Debug, Default)]
pub struct Memories(Mutex<BTreeSet<String>>);

impl Memories {
    /// Makes what of it is not there yet.
    pub fn provide(&self, wanted: &Wanted) -> Result<(), Failed> {
        let mut made = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let volume = Path::new(GUEST_MEMORY).join(&wanted.name);
        let is_new = !made.contains(&wanted.name);
        if is_new {
            fs::create_dir_all(&volume).step(|| format!("create {}", volume.display()))?;
            let (kind, options) = match wanted.pages {
                Pages::Ordinary(bytes) => ("tmpfs", format!("size={bytes}")),
                Pages::Huge(bytes) => ("hugetlbfs", format!("pagesize={bytes}")),
            };
            mount_one("memory", &volume, kind, MsFlags::empty(), &options)?;
        }
        let furnished = furnish(&volume, &wanted.directories, is_new);
        if is_new && furnished.is_err() {
            // The next try makes it anew: its owner is given to a new one only.
            let _ = umount2(&volume, MntFlags::MNT_DETACH);
        }
        let root = furnished?;
        made.insert(wanted.name.clone());
        if let Some((path, name)) = wanted.shown.as_ref().filter(|(_, name)| !made.contains(name)) {
            show(&root, path, &Path::new(GUEST_MEMORY).join(name))?;
            made.insert(name.clone());
        }
        Ok(())
    }
}

/// Opens a volume and makes the directories that it lacks.
fn furnish(volume: &Path, directories: &[Directory], is_new: bool) -> Result<OwnedFd, Failed> {
    let root = File::open(volume).step(|| format!("open {}", volume.display()))?.into();
    for directory in directories {
        let is_root = directory.path.as_os_str().is_empty();
        if is_root && !is_new {
            continue;
        }
        make(&root, directory)
            .step(|| format!("create {} in {}", directory.path.display(), volume.display()))?;
    }
    Ok(root)
}

/// Containers write there: no link of theirs leads anywhere.
fn beneath(root: &OwnedFd, path: &Path) -> nix::Result<OwnedFd> {
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    let how = OpenHow::new()
        .flags(OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS);
    openat2(root, path, how)
}

/// One that is there already stays as it is.
fn make(root: &OwnedFd, directory: &Directory) -> nix::Result<()> {
    let (parent, name) = match (directory.path.parent(), directory.path.file_name()) {
        (Some(parent), Some(name)) => (beneath(root, parent)?, PathBuf::from(name)),
        _ => (beneath(root, Path::new(""))?, PathBuf::from(".")),
    };
    match mkdirat(&parent, &name, Mode::from_bits_truncate(0o700)) {
        Err(Errno::EEXIST) if name != Path::new(".") => return Ok(()),
        Ok(()) | Err(Errno::EEXIST) => {}
        Err(error) => return Err(error),
    }
    // By descriptor: what has that name may be a link by now.
    let flags = OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let made = openat(&parent, &name, flags, Mode::empty())?;
    fchown(&made, Some(Uid::from_raw(directory.uid)), Some(Gid::from_raw(directory.gid)))?;
    fchmod(&made, Mode::from_bits_truncate(directory.mode))
}

/// Mounted once and for good: a container that later puts a link in its place leads nobody elsewhere.
fn show(root: &OwnedFd, path: &Path, target: &Path) -> Result<(), Failed> {
    let step = || format!("mount {} of a volume in memory at {}", path.display(), target.display());
    let directory = beneath(root, path).step(step)?;
    fs::create_dir_all(target).step(step)?;
    DetachedMount::copy_of(&directory).step(step)?.attach(target).step(step)
}
