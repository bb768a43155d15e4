//! Many bytes at once: from a pipe or a socket into the file that the pod shares with the host, without a copy in the guest.

use std::{
    fs::File,
    io::{self, PipeReader, Read},
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
}

impl Bulk {
    /// Takes what a pipe or a socket holds, if that is much and there is a slot for it, and begins to put it there: a
    /// file takes a thread's time.
    pub fn begin(self: &Arc<Self>, source: BorrowedFd<'_>) -> Option<JoinHandle<Outcome>> {
        let is_much = rustix::io::ioctl_fionread(source).is_ok_and(|waiting| waiting >= LEAST);
        if !is_much || self.failed.load(Ordering::Relaxed) {
            return None;
        }
        let slot = self.slots.take()?;
        // What fails here shows when the source is read.
        let (taken, count) = take(source).ok().filter(|(_, count)| *count > 0)?;
        let bulk = Arc::clone(self);
        Some(spawn_blocking(move || bulk.put(taken, slot, count)))
    }

    fn put(&self, mut taken: PipeReader, slot: Slot, count: usize) -> Outcome {
        let mut placed = 0;
        if let Err(error) = self.write(&taken, slot.start(), count, &mut placed) {
            self.failed.store(true, Ordering::Relaxed);
            tracing::warn!("much output goes the slow way: {error}");
        }
        let mut rest = Vec::new();
        // Its other end is closed: what is left is all that is there.
        if let Err(error) = taken.read_to_end(&mut rest) {
            tracing::error!("output was lost: {error}");
        }
        Outcome { placed: slot.hold(placed), rest }
    }

    fn write(&self, taken: &PipeReader, start: u64, count: usize, placed: &mut usize) -> io::Result<()> {
        let file = self.file()?;
        while *placed < count {
            let mut offset = start + *placed as u64;
            match splice(taken, None, file, Some(&mut offset), count - *placed, SpliceFlags::empty()) {
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

/// Moves pages to a pipe of our own, which costs next to nothing, and lets the source fill at once again.
fn take(source: BorrowedFd<'_>) -> io::Result<(PipeReader, usize)> {
    let (taken, into) = io::pipe()?;
    fcntl_setpipe_size(&into, SLOT_BYTES)?;
    let count = splice(source, None, into, None, SLOT_BYTES, SpliceFlags::NONBLOCK)?;
    Ok((taken, count))
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
