//! Work on a thread of its own, which ends with it.

use std::{io, thread};

use tokio::sync::oneshot;

/// Enough for system calls and a few kilobytes of buffers.
const STACK: usize = 256 * 1024;

/// Runs blocking work on a thread that is never used again, so that it may change its own namespaces, and a lookup
/// that hangs (a dead NFS server) holds up nothing else.
///
/// # Errors
/// No thread could be started, or the work panicked.
pub async fn apart<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<T> {
    let (sender, receiver) = oneshot::channel();
    thread::Builder::new()
        .name(name.to_owned())
        .stack_size(STACK)
        .spawn(move || {
            // The receiver is gone where the caller gave up waiting.
            let _ = sender.send(work());
        })
        .map_err(|error| io::Error::new(error.kind(), format!("no thread can be started: {error}")))?;
    receiver.await.map_err(|_| io::Error::other("the thread ended early"))
}

/// Runs short blocking work (files of ours) on the runtime's pool.
///
/// # Errors
/// Those of the work, or the pool is shutting down.
pub async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}
