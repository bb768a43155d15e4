//! Locks that the kernel gives up with their owner's last descriptor.

use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::Path,
};

use rustix::fs::{FlockOperation, flock};

/// Takes the lock of a file, which is made where it is absent; `None` where another owner has it.
///
/// # Errors
/// The file cannot be made.
pub fn try_lock(path: &Path) -> io::Result<Option<File>> {
    loop {
        let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Err(rustix::io::Errno::WOULDBLOCK) => return Ok(None),
            result => result?,
        }
        // The last owner may have removed the file between the opening and the locking.
        let same = |there: std::fs::Metadata| {
            file.metadata().is_ok_and(|here| (here.dev(), here.ino()) == (there.dev(), there.ino()))
        };
        if std::fs::symlink_metadata(path).is_ok_and(same) {
            return Ok(Some(file));
        }
    }
}
