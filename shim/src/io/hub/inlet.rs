//! The way into a process's input for those who attach.

use std::io;

use tokio::io::{AsyncWriteExt, DuplexStream, duplex};

/// What clients have written and the process has not read.
const INPUT_BYTES: usize = 64 * 1024;

/// The input of a process.
#[derive(Debug)]
pub struct Inlet {
    pipe: tokio::sync::Mutex<Option<DuplexStream>>,
    once: bool,
}

impl Inlet {
    /// An input, and what the process reads of it. With `once`, the first who leaves ends it.
    pub(super) fn open(once: bool) -> (Self, DuplexStream) {
        let (near, far) = duplex(INPUT_BYTES);
        (Self { pipe: tokio::sync::Mutex::new(Some(near)), once }, far)
    }

    /// Hands bytes on, as fast as the process reads.
    ///
    /// # Errors
    /// The input has ended.
    pub async fn write(&self, bytes: &[u8]) -> io::Result<()> {
        match self.pipe.lock().await.as_mut() {
            Some(pipe) => pipe.write_all(bytes).await,
            None => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }

    /// A client writes no more.
    pub async fn leave(&self) {
        if self.once
            && let Some(mut pipe) = self.pipe.lock().await.take()
        {
            // A reader that has gone needs no end.
            let _ = pipe.shutdown().await;
        }
    }
}
