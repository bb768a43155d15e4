//! FIFOs: containerd's way.

use std::{
    fs::{File, OpenOptions},
    io,
    os::{
        fd::OwnedFd,
        unix::fs::{FileTypeExt, OpenOptionsExt},
    },
    path::Path,
};

use rustix::fs::OFlags;

/// Opens a FIFO to read from. It has no end before its first writer has come and gone.
///
/// # Errors
/// It is not there, or no FIFO.
pub(super) fn open_source(path: &Path) -> io::Result<OwnedFd> {
    open(OpenOptions::new().read(true), path)
}

/// Opens a FIFO to write to. It is held open for reading as well, so that a reader that restarts (containerd does)
/// finds what was written meanwhile, and the writing never fails.
///
/// # Errors
/// It is not there, or no FIFO.
pub(super) fn open_sink(path: &Path) -> io::Result<OwnedFd> {
    open(OpenOptions::new().read(true).write(true), path)
}

fn open(options: &mut OpenOptions, path: &Path) -> io::Result<OwnedFd> {
    let file: File = options.custom_flags(OFlags::NONBLOCK.bits().cast_signed()).open(path)?;
    if file.metadata()?.file_type().is_fifo() {
        return Ok(file.into());
    }
    Err(io::Error::new(io::ErrorKind::InvalidInput, "not a FIFO"))
}
