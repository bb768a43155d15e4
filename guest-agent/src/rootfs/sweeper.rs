//! Clears up behind the containers, on a thread of its own: removes the files of those that are gone, gives freed blocks of the
//! scratch disk back to the host, and frees memory that is held twice.

use std::{
    fs::{self, File},
    io,
    path::PathBuf,
    sync::{
        Arc,
        mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel},
    },
    thread,
    time::Duration,
};

use nix::sys::statvfs::fstatvfs;

use super::erofs::Layers;
use crate::{
    error::{Failed, Step},
    sys::trim::trim,
};

/// How often it looks for what running containers left.
const PERIOD: Duration = Duration::from_secs(5);
/// Less than that is not worth the work.
const WORTH: i64 = 4 << 20;
/// Smaller pieces cost the host as much work as large ones, and give little.
const PIECE: u64 = 64 << 10;
/// What the kernel has written to the disk since it was mounted.
const WRITTEN: &str = "/sys/fs/ext4/vda/session_write_kbytes";

/// Says that there is something to remove. The thread ends with it.
#[derive(Debug)]
pub struct Sweeper(SyncSender<()>);

impl Sweeper {
    /// Starts to clear up behind these layers, and on the scratch disk, if there is one, that `trash` lies on.
    pub fn start(layers: Arc<Layers>, trash: Option<PathBuf>) -> Result<Self, Failed> {
        let disk = trash.map(Disk::open).transpose().step(|| "look at the scratch disk".to_owned())?;
        // One word that waits is as good as many: it is about all that lies in the trash.
        let (wake, woken) = sync_channel(1);
        let run = move || sweep(&woken, &layers, disk);
        thread::Builder::new()
            .name("sweeper".to_owned())
            .spawn(run)
            .step(|| "start the sweeper".to_owned())?;
        Ok(Self(wake))
    }

    /// Something was put into the trash. Nobody waits for its removal: its only effect is free space.
    pub fn wake(&self) {
        // If there is no room for one more word, the thread has yet to look.
        let _ = self.0.try_send(());
    }
}

fn sweep(woken: &Receiver<()>, layers: &Layers, mut disk: Option<Disk>) {
    let tell = |what: &str, outcome: io::Result<()>| {
        if let Err(error) = outcome {
            tracing::warn!("{what}: {error}");
        }
    };
    loop {
        let deleted = match woken.recv_timeout(PERIOD) {
            Ok(()) => true,
            Err(RecvTimeoutError::Timeout) => false,
            Err(RecvTimeoutError::Disconnected) => return,
        };
        tell("free copies of layers", layers.forget_copies());
        let Some(disk) = &mut disk else { continue };
        if deleted {
            tell("remove files of deleted containers", disk.empty_trash());
        }
        tell("give freed blocks of the scratch disk back", disk.give_back());
    }
}

/// The scratch disk.
#[derive(Debug)]
struct Disk {
    trash: PathBuf,
    /// A directory of the disk.
    root: File,
    /// When freed blocks were last given back.
    then: Figures,
}

/// In bytes.
#[derive(Debug, Clone, Copy)]
struct Figures {
    free: i64,
    written: i64,
}

impl Figures {
    /// The most that can have been freed since then. Free space alone does not tell: what was freed may have been taken meanwhile,
    /// but then it has been written.
    fn freed_since(self, then: Self) -> i64 {
        (self.free - then.free) + (self.written - then.written)
    }
}

impl Disk {
    fn open(trash: PathBuf) -> io::Result<Self> {
        let root = File::open(&trash)?;
        let then = figures(&root)?;
        Ok(Self { trash, root, then })
    }

    /// Removes all that lies in the trash. What cannot be removed is left out, and the last error told.
    fn empty_trash(&self) -> io::Result<()> {
        let mut outcome = Ok(());
        for entry in fs::read_dir(&self.trash)? {
            let removed = entry.and_then(|entry| fs::remove_dir_all(entry.path()));
            outcome = removed.and(outcome);
        }
        outcome
    }

    /// Gives freed blocks back, if there are enough. The mount option `discard` would do so too, but without a journal it does in
    /// the middle of each removal of a file, and waits for the host.
    fn give_back(&mut self) -> io::Result<()> {
        let now = figures(&self.root)?;
        if now.freed_since(self.then) < WORTH {
            return Ok(());
        }
        // Before the work: what is freed during it may have been missed.
        self.then = now;
        trim(&self.root, PIECE)
    }
}

fn figures(root: &File) -> io::Result<Figures> {
    let file_system = fstatvfs(root)?;
    let written = fs::read_to_string(WRITTEN)?;
    let kilobytes: u64 = written.trim().parse().map_err(io::Error::other)?;
    Ok(Figures {
        free: (file_system.blocks_free() * file_system.fragment_size()).cast_signed(),
        written: (kilobytes << 10).cast_signed(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_freed_is_known_also_when_it_was_taken_again() {
        let then = Figures { free: 100, written: 1000 };
        // Appended, overwritten, removed, removed after it was written.
        for (free, written, freed) in [(60, 1040, 0), (100, 1040, 40), (140, 1000, 40), (100, 1040, 40)] {
            assert_eq!(Figures { free, written }.freed_since(then), freed);
        }
    }

    #[test]
    fn all_that_can_be_removed_is() {
        let directory = tempfile::tempdir().unwrap();
        let trash = directory.path().to_owned();
        for name in ["1", "2", "3"] {
            fs::create_dir_all(trash.join(name).join("upper/a/b")).unwrap();
        }
        fs::write(trash.join("no-directory"), "").unwrap();
        let then = Figures { free: 0, written: 0 };
        let disk = Disk { root: File::open(&trash).unwrap(), trash: trash.clone(), then };
        assert!(disk.empty_trash().is_err());
        let left: Vec<_> = fs::read_dir(&trash).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, ["no-directory"]);
    }
}
