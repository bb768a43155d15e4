//! A root filesystem that the host has mounted in the share.

use std::{fs::File, path::Path};

use nix::{
    fcntl::{OFlag, OpenHow, ResolveFlag, openat2},
    sys::stat::Mode,
};

use crate::{
    error::{Failed, Step},
    paths,
    sys::mount::DetachedMount,
};

/// Binds a directory of the share to `target`. It is opened without symbolic links and never above the share.
pub fn mount(path: &str, target: &Path) -> Result<(), Failed> {
    let step = || format!("mount the shared root filesystem {path:?}");
    let inside = Path::new(path).strip_prefix(paths::SHARE).unwrap_or_else(|_| Path::new(path));
    let share = File::open(paths::SHARE).step(step)?;
    let how = OpenHow::new()
        .flags(OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC)
        .mode(Mode::empty())
        .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS);
    let directory = openat2(&share, inside, how).step(step)?;
    DetachedMount::copy_of(&directory).step(step)?.attach(target).step(step)
}
