//! A mount namespace beside the agent's. What is mounted there alone is no part of the containers' namespaces, which are copies of
//! the agent's: of each mount there the kernel makes and takes down a copy, and libcontainer reads a line, for each container.

use std::{
    sync::mpsc::{Receiver, SyncSender, sync_channel},
    thread,
};

use nix::sched::{CloneFlags, unshare};

use crate::error::{Failed, Step};

/// A thread that lives in the namespace. Both end with this.
#[derive(Debug)]
pub struct MountNamespace {
    work: SyncSender<Work>,
}

type Work = Box<dyn FnOnce() + Send>;

impl MountNamespace {
    /// A copy of the caller's namespace as it is now.
    pub fn copy(name: &str) -> Result<Self, Failed> {
        let (work, queue) = sync_channel(0);
        let (tell, told) = sync_channel(1);
        let live = move || {
            // Threads share the root and the working directory, which are mounts.
            let apart = unshare(CloneFlags::CLONE_FS | CloneFlags::CLONE_NEWNS);
            let lives = apart.is_ok();
            if tell.send(apart).is_ok() && lives {
                serve(&queue);
            }
        };
        let step = || format!("make the mount namespace of {name}");
        thread::Builder::new().name(name.to_owned()).spawn(live).step(step)?;
        told.recv().map_err(|_| gone(step()))?.step(step)?;
        Ok(Self { work })
    }

    /// Does a piece of work there. Pieces are done one after the other.
    pub fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, Failed> {
        let step = || "work in a mount namespace".to_owned();
        let (tell, told) = sync_channel(1);
        // Nobody waits for an answer whose asker is gone.
        let work = Box::new(move || drop(tell.send(work())));
        self.work.send(work).map_err(|_| gone(step()))?;
        told.recv().map_err(|_| gone(step()))
    }
}

fn serve(queue: &Receiver<Work>) {
    while let Ok(work) = queue.recv() {
        work();
    }
}

fn gone(step: String) -> Failed {
    Failed::because(step, "its thread has ended")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_a_namespace_of_its_own() {
        let of_this_thread = || std::fs::read_link("/proc/thread-self/ns/mnt").unwrap();
        let namespace = MountNamespace::copy("test").unwrap();
        let theirs = namespace.run(of_this_thread).unwrap();
        assert_ne!(theirs, of_this_thread());
    }
}
