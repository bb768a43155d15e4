//! Work that blocks for moments: on files of ours.

use tokio::task::spawn_blocking;

use crate::error::Error;

/// Does it off the async threads.
pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Error> {
    spawn_blocking(work).await.map_err(|ended| Error::Abandoned(ended.to_string()))
}
