//! A copy of PID 1, forked before there were threads, from which all processes of containers descend.
//!
//! libcontainer hangs in a threaded process, and so may anything that forks one. The zygote has one thread, and its
//! pages and translated code are warm already where a fresh program would have to be loaded.
//!
//! ```text
//! PID 1 ── request: one message, with the descriptors of `fds` ──▶ zygote ── fork ──▶ worker
//! PID 1 ◀── replies: messages on a socket of the request's own ───────────────────── worker and its child
//! ```
//!
//! The replies' socket is inherited up to the container's program and closed when that is executed. So its end means
//! success, and an error after the fork has a way home.

mod become_program;
mod client;
mod create;
mod exec;
mod message;
mod pause;
mod worker;

use std::os::fd::OwnedFd;

pub use client::{Conversation, Zygote, unexpected};
pub use message::{Create, Exec, Failure, Program, Reply, Request, Terminal};

use crate::{
    error::{Failed, Step},
    init::console,
    sys::{
        process::{self, Fork},
        socket,
    },
};

/// The zygote's own reaper ignores its workers' statuses: their replies say all.
///
/// # Safety
/// The calling process must have one thread only.
pub unsafe fn spawn() -> Result<Zygote, Failed> {
    let (ours, theirs) = socket::pair().step(|| "make the zygote's socket".to_owned())?;
    // SAFETY: the caller promises a single thread.
    match unsafe { process::fork() }.step(|| "fork the zygote".to_owned())? {
        Fork::Parent(pid) => Ok(Zygote::new(pid, ours)),
        Fork::Child => {
            drop(ours);
            console::not_init();
            process::set_name(c"zygote");
            serve(theirs)
        }
    }
}

fn serve(requests: OwnedFd) -> ! {
    process::set_ignored(libc::SIGCHLD, true);
    let mut byte = [0u8; 1];
    loop {
        let fds = match socket::receive(&requests, &mut byte) {
            Ok((0, _)) => process::exit(0),
            Ok((_, fds)) => fds,
            Err(error) => {
                tracing::error!("zygote: receive a request: {error}");
                process::exit(1);
            }
        };
        // SAFETY: the zygote has never had a second thread.
        match unsafe { process::fork() } {
            Ok(Fork::Parent(_)) => {}
            Ok(Fork::Child) => {
                // Whoever has it can ask for any process, and what comes of this one is in reach of a container.
                drop(requests);
                process::set_name(c"worker");
                process::default_signals();
                process::exit(worker::answer(fds));
            }
            Err(error) => refuse(fds, &error),
        }
    }
}

/// The second descriptor is the replies' socket: the asker shall learn why.
fn refuse(mut fds: Vec<OwnedFd>, error: &std::io::Error) {
    if fds.len() > 1 {
        let failure = Failure::exhausted("fork a worker", error);
        let _ = message::reply(&fds.swap_remove(1), &Reply::Failed(failure), None);
    }
}
