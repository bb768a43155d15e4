//! Where the shim logs to: containerd's FIFO in the bundle where there is one, else a file of bounded size.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{FileTypeExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::Mutex,
};

use tracing_subscriber::{filter::Targets, fmt, layer::SubscriberExt, util::SubscriberInitExt};

/// Above this size the file begins anew; the last one is kept beside it.
const LARGEST: u64 = 1 << 20;

/// Begins to log.
///
/// # Errors
/// The log cannot be opened, or the filter makes no sense.
pub fn begin(bundle: &Path, file: PathBuf, filter: &str, debug: bool) -> io::Result<()> {
    let filter: Targets = filter.parse().map_err(|error| {
        io::Error::new(io::ErrorKind::InvalidInput, format!("log.filter {filter:?}: {error}"))
    })?;
    let filter = if debug { filter.with_default(tracing::Level::DEBUG) } else { filter };
    let layer =
        fmt::layer().with_ansi(false).with_target(false).with_writer(Mutex::new(Log::open(bundle, file)?));
    tracing_subscriber::registry().with(filter).with(layer).try_init().map_err(io::Error::other)
}

enum Log {
    Fifo(File),
    File { path: PathBuf, file: File, size: u64 },
}

impl Log {
    fn open(bundle: &Path, path: PathBuf) -> io::Result<Self> {
        let fifo = bundle.join("log");
        if std::fs::metadata(&fifo).is_ok_and(|file| file.file_type().is_fifo()) {
            // Both ways, so that it stays open while containerd restarts; a full one drops lines.
            let flags = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
            let file = OpenOptions::new().read(true).write(true).custom_flags(flags).open(fifo)?;
            return Ok(Self::Fifo(file));
        }
        let file = OpenOptions::new().append(true).create(true).mode(0o600).open(&path)?;
        let size = file.metadata()?.len();
        Ok(Self::File { path, file, size })
    }
}

impl Write for Log {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        match self {
            Self::Fifo(fifo) => {
                let _ = fifo.write(line);
                Ok(line.len())
            }
            Self::File { path, file, size } => {
                if *size + line.len() as u64 > LARGEST {
                    std::fs::rename(&*path, path.with_extension("log.1"))?;
                    *file = OpenOptions::new().append(true).create(true).mode(0o600).open(&*path)?;
                    *size = 0;
                }
                let written = file.write(line)?;
                *size += written as u64;
                Ok(written)
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_never_grows_beyond_its_bound() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("shim.log");
        let mut log = Log::open(directory.path(), path.clone()).unwrap();
        let line = [b'x'; 1000];
        for _ in 0..2500 {
            log.write_all(&line).unwrap();
        }
        for file in [&path, &path.with_extension("log.1")] {
            assert!(std::fs::metadata(file).unwrap().len() <= LARGEST);
        }
    }
}
