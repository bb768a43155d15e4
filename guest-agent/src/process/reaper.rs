//! The only place that takes statuses of children. All orphans of the guest become children of PID 1, among them
//! the containers' processes, whose ids the agent learns a moment after they begin: a status that comes first is kept.

use std::{
    collections::HashMap,
    io,
    os::fd::OwnedFd,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
};

use crate::sys::{process, time};

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exit {
    /// 0 to 255; 128 + n after death by signal n.
    pub code: u32,
    /// When, in nanoseconds since the epoch.
    pub at_unix_nanos: i64,
}

/// Tells the end of one process.
pub type ExitWatch = watch::Receiver<Option<Exit>>;

#[derive(Debug, Default)]
struct Table {
    watched: HashMap<i32, watch::Sender<Option<Exit>>>,
    /// Of processes that nobody has claimed: orphans, and what is just being launched.
    unclaimed: HashMap<i32, Exit>,
    launches: usize,
}

/// The table of statuses.
#[derive(Debug, Default)]
pub struct Reaper {
    table: Mutex<Table>,
}

impl Reaper {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on, and until the returned guard goes, no status is thrown away.
    pub fn launch(self: &Arc<Self>) -> Launch {
        self.table().launches += 1;
        Launch(Arc::clone(self))
    }

    /// Takes the statuses of all children that have ended.
    pub fn reap(&self) -> io::Result<()> {
        let mut table = self.table();
        while let Some(ended) = process::reap_one()? {
            table.record(ended, time::unix_nanos());
        }
        Ok(())
    }

    /// Reaps whenever a child ends.
    pub async fn run(self: Arc<Self>) -> io::Result<std::convert::Infallible> {
        let mut children = signal(SignalKind::child())?;
        loop {
            // Once before the first wait: a child may have ended before the handler was there.
            self.reap()?;
            children.recv().await;
        }
    }
}

impl Table {
    fn record(&mut self, ended: process::Ended, at_unix_nanos: i64) {
        let exit = Exit { code: ended.code, at_unix_nanos };
        if let Some(watcher) = self.watched.remove(&ended.pid) {
            watcher.send_replace(Some(exit));
        } else if self.launches > 0 {
            self.unclaimed.insert(ended.pid, exit);
        }
    }
}

/// While it lives, statuses of unknown processes are kept.
#[derive(Debug)]
pub struct Launch(Arc<Reaper>);

impl Launch {
    /// A handle on a process that has just been made, and what tells its end.
    pub fn claim(&self, pid: i32) -> io::Result<(OwnedFd, ExitWatch)> {
        let mut table = self.0.table();
        let kept = table.unclaimed.remove(&pid);
        // The id cannot be taken again under our hands: only this table's owner reaps, and we hold its lock.
        let (handle, exit) = match (process::pidfd_open(pid), kept) {
            // It lives, so a status kept under its id was of an earlier bearer.
            (Ok(handle), _) => (handle, None),
            (Err(_), Some(exit)) => (never_a_process()?, Some(exit)),
            (Err(error), None) => return Err(error),
        };
        let (sender, receiver) = watch::channel(exit);
        if exit.is_none() {
            table.watched.insert(pid, sender);
        }
        Ok((handle, receiver))
    }
}

/// A handle for a process that has gone: every use of it fails.
fn never_a_process() -> io::Result<OwnedFd> {
    Ok(std::fs::File::open("/dev/null")?.into())
}

impl Drop for Launch {
    fn drop(&mut self) {
        let mut table = self.0.table();
        table.launches -= 1;
        if table.launches == 0 {
            table.unclaimed.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(pid: i32, code: u32) -> process::Ended {
        process::Ended { pid, code }
    }

    #[test]
    fn a_status_that_comes_before_the_claim_is_not_lost() {
        let reaper = Arc::new(Reaper::default());
        // No process has so high an id, so that the claim finds it gone.
        let gone = i32::MAX - 1;
        let launch = reaper.launch();
        reaper.table().record(ended(gone, 7), 1);
        let (_, exit) = launch.claim(gone).unwrap();
        assert_eq!(exit.borrow().unwrap().code, 7);
    }

    #[test]
    fn orphans_are_forgotten_when_nothing_is_being_launched() {
        let reaper = Arc::new(Reaper::default());
        reaper.table().record(ended(11, 0), 1);
        assert!(reaper.table().unclaimed.is_empty());
        let launch = reaper.launch();
        reaper.table().record(ended(12, 0), 1);
        assert_eq!(reaper.table().unclaimed.len(), 1);
        drop(launch);
        assert!(reaper.table().unclaimed.is_empty());
    }

    #[test]
    fn an_earlier_bearers_status_is_not_given_to_a_living_process() {
        let reaper = Arc::new(Reaper::default());
        let own = std::process::id() as i32;
        let launch = reaper.launch();
        reaper.table().record(ended(own, 3), 1);
        let (_, exit) = launch.claim(own).unwrap();
        assert_eq!(*exit.borrow(), None);
        reaper.table().record(ended(own, 137), 2);
        assert_eq!(exit.borrow().unwrap().code, 137);
    }
}
