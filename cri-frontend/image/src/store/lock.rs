//! One process a store.

use std::{
    fs::{File, OpenOptions},
    path::Path,
};

use nix::{
    errno::Errno,
    fcntl::{Flock, FlockArg},
};

use super::disk::failed;
use crate::ImageError;

/// Takes the lock, which the kernel gives back when the process ends in whatever way.
pub(super) fn take(root: &Path) -> Result<Flock<File>, ImageError> {
    let path = root.join("lock");
    let file = OpenOptions::new().create(true).truncate(false).write(true).open(&path);
    let file = file.map_err(failed("open", &path))?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| match errno {
        Errno::EWOULDBLOCK => ImageError::Locked { path: root.to_owned() },
        errno => failed("lock", &path)(errno.into()),
    })
}
