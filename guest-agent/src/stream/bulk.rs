//! Many bytes at once: from a pipe or a socket into the file that the pod shares with the host, without a copy in the guest.

use std::{
    fs::File,
    io::{self, PipeReader, PipeWriter, Read},
    os::{fd::BorrowedFd, unix::fs::OpenOptionsExt},
    path::Path,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
};

use a3s_box_proto::{
    ports::SHARE_STREAMS,
    stream::{Placed, SLOT_BYTES, Slot, Slots},
};
use rustix::{
    io::Errno,
    pipe::{SpliceFlags, fcntl_setpipe_size, splice},
};
use tokio::task::{JoinHandle, spawn_blocking};

use crate::paths;

/// Less than this is not worth a request: frames carry it.
const LEAST: u64 = 64 * 1024;

/// The file. It is opened when it is first needed, and not used again once it fails.
#[derive(Debug, Default)]
pub struct Bulk {
    slots: Slots,
    file: OnceLock<File>,
    failed: AtomicBool,
}

/// What became of bytes that were to go into the file.
#[derive(Debug)]
pub struct Outcome {
    /// Those that are there.
    pub placed: Option<Placed>,
    /// Those that come after them and did not get there.
    pub rest: Vec<u8>,
    /// For the next ones, unless it holds something.
    pub siding: Option<Siding>,
}

impl Bulk {
    /// Takes what a pipe or a socket holds, if that is much and there is a slot for it, and begins to put it there: a
    /// file takes a thread's time.
    pub fn begin(
        self: &Arc<Self>,
        source: BorrowedFd<'_>,
        siding: &mut Option<Siding>,
    ) -> Option<JoinHandle<Outcome>> {
        let is_much = rustix::io::ioctl_fionread(source).is_ok_and(|waiting| waiting >= LEAST);
        if !is_much || self.failed.load(Ordering::Relaxed) {
            return None;
        }
        let slot = self.slots.take()?;
        // What fails here shows when the source is read.
        let taken = siding.take().map_or_else(Siding::new, Ok).ok()?;
        let count = taken.take(source).ok().filter(|count| *count > 0)?;
        let bulk = Arc::clone(self);
        Some(spawn_blocking(move || bulk.put(taken, slot, count)))
    }

    fn put(&self, siding: Siding, slot: Slot, count: usize) -> Outcome {
        let mut placed = 0;
        let written = self.write(&siding, slot.start(), count, &mut placed);
        let placed = slot.hold(placed);
        let Err(error) = written else {
            return Outcome { placed, rest: Vec::new(), siding: Some(siding) };
        };
        self.failed.store(true, Ordering::Relaxed);
        tracing::warn!("much output goes the slow way: {error}");
        let rest = siding.rest().unwrap_or_else(|error| {
            tracing::error!("output was lost: {error}");
            Vec::new()
        });
        Outcome { placed, rest, siding: None }
    }

    fn write(&self, siding: &Siding, start: u64, count: usize, placed: &mut usize) -> io::Result<()> {
        let file = self.file()?;
        while *placed < count {
            let mut offset = start + *placed as u64;
            match splice(&siding.read, None, file, Some(&mut offset), count - *placed, SpliceFlags::empty()) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => *placed += written,
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Written to without the guest's cache: the pages go to the host as they are.
    fn file(&self) -> io::Result<&File> {
        if let Some(file) = self.file.get() {
            return Ok(file);
        }
        let path = Path::new(paths::SHARE).join(SHARE_STREAMS);
        let file = File::options().write(true).custom_flags(libc::O_DIRECT).open(path)?;
        Ok(self.file.get_or_init(|| file))
    }
}

/// A pipe of our own to which a source's pages are moved, which costs next to nothing and lets the source fill at once
/// again. The guest's kernel keeps the pages that have been written from here, and gives them back to the source by the
/// next move: as long as one siding serves one source, its output goes round in the same pages.
#[derive(Debug)]
pub struct Siding {
    read: PipeReader,
    write: PipeWriter,
}

impl Siding {
    fn new() -> io::Result<Self> {
        let (read, write) = io::pipe()?;
        fcntl_setpipe_size(&write, SLOT_BYTES)?;
        Ok(Self { read, write })
    }

    fn take(&self, source: BorrowedFd<'_>) -> io::Result<usize> {
        Ok(splice(source, None, &self.write, None, SLOT_BYTES, SpliceFlags::NONBLOCK)?)
    }

    /// What is left in it.
    fn rest(self) -> io::Result<Vec<u8>> {
        let Self { mut read, write } = self;
        drop(write);
        let mut rest = Vec::new();
        read.read_to_end(&mut rest)?;
        Ok(rest)
    }
}

#[cfg(test)]
impl Bulk {
    /// With a file that is there already.
    pub fn of(file: File) -> Self {
        Self { slots: Slots::default(), file: file.into(), failed: AtomicBool::new(false) }
    }

    /// What lies in a place.
    pub fn bytes(&self, placed: &Placed) -> Vec<u8> {
        use std::os::unix::fs::FileExt;
        let mut bytes = vec![0; placed.len()];
        self.file().unwrap().read_exact_at(&mut bytes, placed.start() as u64).unwrap();
        bytes
    }
}
