//! File work that nobody waits for.

use tokio::runtime::Handle;

/// Does it where it may block; at once only on a thread that belongs to no runtime. What a runtime's end cuts off is cleared
/// away at the store's next start.
pub(crate) fn in_background(work: impl FnOnce() + Send + 'static) {
    match Handle::try_current() {
        Ok(runtime) => drop(runtime.spawn_blocking(work)),
        Err(_) => work(),
    }
}
