//! Descriptors that the runtime watches.

use std::{io, os::fd::OwnedFd};

use tokio::io::{Interest, unix::AsyncFd};

/// Watches a descriptor that is used for nothing else.
pub fn watch(fd: OwnedFd, interest: Interest) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: the watcher owns the descriptor, which therefore stays open as long as it is registered.
    Ok(unsafe { AsyncFd::register_with_interest(fd, interest) }?)
}
