//! The output of an exec: both streams within one bound, the rest read and dropped so that the process is not held up.

use std::{
    io,
    sync::atomic::{AtomicUsize, Ordering},
};

use bytes::BytesMut;

use super::shim_socket::{Output, ShimSocket};
use crate::error::Error;

/// One read.
const CHUNK: usize = 16 * 1024;

/// How many bytes may still be kept.
#[derive(Debug)]
pub struct Budget(AtomicUsize);

impl Budget {
    /// A budget of so many bytes.
    pub fn new(bytes: usize) -> Self {
        Self(AtomicUsize::new(bytes))
    }

    /// Takes as much of `wanted` as there is.
    fn take(&self, wanted: usize) -> usize {
        let before = self
            .0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| Some(left.saturating_sub(wanted)));
        before.unwrap_or_else(|unchanged| unchanged).min(wanted)
    }
}

/// One stream: what came from it.
#[derive(Debug, Default)]
pub struct Capture {
    kept: Vec<u8>,
}

impl Capture {
    /// Reads to the stream's end. What was read is kept also if this is cut short.
    ///
    /// # Errors
    /// It broke off.
    pub async fn fill(&mut self, socket: Option<&ShimSocket>, budget: &Budget) -> Result<(), Error> {
        let Some(socket) = socket else { return Ok(()) };
        let filled = match socket.accept_output().await {
            Ok(stream) => keep(stream, &mut self.kept, budget).await,
            Err(error) => Err(error),
        };
        filled.map_err(Error::file("read an exec's output at", socket.path()))
    }

    /// What was kept.
    pub fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.kept)
    }
}

async fn keep(mut output: Output, kept: &mut Vec<u8>, budget: &Budget) -> io::Result<()> {
    let mut chunk = BytesMut::with_capacity(CHUNK);
    loop {
        chunk.clear();
        let count = output.read(&mut chunk).await?;
        if count == 0 {
            return Ok(());
        }
        kept.extend_from_slice(&chunk[..budget.take(count)]);
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;

    use super::*;

    #[tokio::test]
    async fn both_streams_share_one_bound_and_the_rest_is_drained() {
        let dir = tempfile::tempdir().unwrap();
        let budget = Budget::new(100_000);
        let mut lengths = Vec::new();
        for name in ["out", "err"] {
            let socket = ShimSocket::listen(dir.path().join(name)).unwrap();
            let mut capture = Capture::default();
            let writing = async {
                let mut shim = tokio::net::UnixStream::connect(socket.path()).await.unwrap();
                shim.write_all(&vec![1; 90_000]).await.unwrap();
                shim.shutdown().await.unwrap();
                shim
            };
            let (filled, _held) = tokio::join!(capture.fill(Some(&socket), &budget), writing);
            filled.unwrap();
            lengths.push(capture.take().len());
        }
        assert_eq!(lengths, [90_000, 10_000]);
    }

    #[tokio::test]
    async fn what_was_read_is_kept_when_cut_short() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let socket = ShimSocket::listen(path.clone()).unwrap();
        let mut capture = Capture::default();
        let budget = Budget::new(1000);
        let mut stream = tokio::net::UnixStream::connect(&path).await.unwrap();
        stream.write_all(b"hello").await.unwrap();
        {
            let mut filling = std::pin::pin!(capture.fill(Some(&socket), &budget));
            while budget.0.load(Ordering::Relaxed) == 1000 {
                tokio::select! {
                    _ = &mut filling => panic!("the stream has not ended"),
                    () = tokio::task::yield_now() => {}
                }
            }
        }
        assert_eq!(capture.take(), b"hello");
        drop(socket);
        assert!(!path.exists());
    }
}
