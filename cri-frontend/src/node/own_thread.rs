//! Work where a caller's path leads, each on a thread of its own: a file system that hangs there (a dead NFS server) costs
//! that, and not one of the threads that all pods need.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

use tokio::{
    sync::oneshot,
    time::{Instant, timeout},
};

use crate::error::Error;

/// A file system that has not answered by then hangs.
const PATIENCE: Duration = Duration::from_secs(20);
/// Enough for a few system calls.
const STACK: usize = 256 * 1024;
/// The most threads. One that hangs stays until its file system answers, which may be never.
const MOST: usize = 512;

/// All work in progress.
static RUNNING: Mutex<Running> = Mutex::new(Running { next: 0, begun: BTreeMap::new() });

struct Running {
    next: u64,
    /// Where, and since when.
    begun: BTreeMap<u64, (PathBuf, Instant)>,
}

fn running() -> MutexGuard<'static, Running> {
    RUNNING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A thread's note in [`RUNNING`].
struct Note(u64);

impl Note {
    /// Refused where an earlier attempt hangs: a caller that tries again and again would have a thread for each.
    fn of(action: &'static str, path: &Path) -> Result<Self, Error> {
        let mut running = running();
        let mut here = running.begun.values().filter(|(begun, _)| begun == path);
        if here.any(|(_, since)| since.elapsed() >= PATIENCE) {
            let error =
                io::Error::new(io::ErrorKind::TimedOut, "an earlier attempt still waits for its file system");
            return Err(Error::file(action, path)(error));
        }
        if running.begun.len() >= MOST {
            return Err(Error::Crowded { what: "threads that wait for file systems", most: MOST });
        }
        let number = running.next;
        running.next += 1;
        running.begun.insert(number, (path.to_owned(), Instant::now()));
        Ok(Self(number))
    }
}

impl Drop for Note {
    fn drop(&mut self) {
        running().begun.remove(&self.0);
    }
}

/// Does such work, and waits for it for a while.
pub(super) async fn on_own_thread<T, F>(action: &'static str, path: PathBuf, work: F) -> Result<T, Error>
where
    F: FnOnce(&Path) -> io::Result<T> + Send + 'static,
    T: Send + 'static,
{
    let note = Note::of(action, &path)?;
    let shown = path.clone();
    let (answer, outcome) = oneshot::channel();
    let spawned = thread::Builder::new().name("path".into()).stack_size(STACK).spawn(move || {
        let result = work(&path);
        drop(note);
        // Nobody waits any more where it came too late.
        let _ = answer.send(result);
    });
    let outcome = match spawned {
        Ok(_) => timeout(PATIENCE, outcome).await,
        Err(error) => return Err(Error::file("start the thread to look at", shown)(error)),
    };
    match outcome {
        Ok(Ok(result)) => result.map_err(Error::file(action, shown)),
        Ok(Err(ended)) => Err(Error::Abandoned(ended.to_string())),
        Err(late) => Err(Error::file(action, shown)(late.into())),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;
    use crate::error::Kind;

    #[tokio::test]
    async fn a_path_that_hangs_costs_one_thread_however_often_it_is_tried() {
        let path = PathBuf::from("/a/path/of/this/test");
        let (revive, dead) = mpsc::channel::<()>();
        let hang = on_own_thread("look at", path.clone(), move |_| dead.recv().map_err(io::Error::other));
        tokio::time::pause();
        assert_eq!(hang.await.unwrap_err().kind(), Kind::DeadlineExceeded);
        tokio::time::resume();
        for _ in 0..3 {
            let again =
                on_own_thread("look at", path.clone(), |_| -> io::Result<()> { unreachable!() }).await;
            assert!(again.unwrap_err().to_string().contains("earlier attempt"));
        }
        assert_eq!(on_own_thread("look at", "/another".into(), |_| Ok(7)).await.unwrap(), 7);

        revive.send(()).unwrap();
        while on_own_thread("look at", path.clone(), |_| Ok(())).await.is_err() {
            tokio::task::yield_now().await;
        }
    }
}
