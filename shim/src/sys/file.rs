//! Files that must be whole or absent.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

/// Replaces a file durably: after a crash there is the old content or the new one, never a part.
///
/// # Errors
/// The file system fails; the message names the file.
pub fn write_durably(path: &Path, content: &[u8]) -> io::Result<()> {
    let attempt = || {
        let temporary = path.with_extension("tmp");
        let mut file =
            OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        // The rename itself is durable when its directory is.
        File::open(path.parent().unwrap_or(Path::new("/")))?.sync_all()
    };
    attempt().map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))
}

/// Success where what was to be removed is not there.
///
/// # Errors
/// Anything but absence.
pub fn absent_is_fine(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
