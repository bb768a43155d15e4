//! The init process of a PID namespace that containers share.

use std::os::fd::OwnedFd;

use nix::sched::{CloneFlags, unshare};

use super::message::{During, Failure, Reply, reply};
use crate::sys::process::{self, Fork};

/// Makes the namespace with its first process, which does nothing but inherit orphans.
pub fn run(replies: &OwnedFd) -> Result<(), Failure> {
    unshare(CloneFlags::CLONE_NEWPID).during("make a PID namespace")?;
    // SAFETY: a worker has one thread.
    match unsafe { process::fork() }.during("fork the namespace's first process")? {
        Fork::Parent(pid) => reply(replies, &Reply::Made(pid), None).during("reply"),
        Fork::Child => {
            process::set_name(c"pause");
            // The kernel then takes their statuses itself.
            process::set_ignored(libc::SIGCHLD, true);
            // SAFETY: this process uses nothing that it has inherited.
            let _ = unsafe { process::close_from(0) };
            loop {
                nix::unistd::pause();
            }
        }
    }
}
