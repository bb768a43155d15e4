//! The output of an exec: both streams within one bound, the rest read and dropped so that the process is not held up.

use std::{
    io,
    sync::atomic::{AtomicUsize, Ordering},
};

use tokio::io::{AsyncRead, AsyncReadExt};
use tracing::warn;

use super::shim_socket::ShimSocket;

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
    pub async fn fill(&mut self, socket: Option<&ShimSocket>, budget: &Budget) {
        let Some(socket) = socket else { return };
        let result = match socket.accept().await {
            Ok(stream) => keep(stream, &mut self.kept, budget).await,
            Err(error) => Err(error),
        };
        if let Err(error) = result {
            warn!(path = %socket.path().display(), %error, "the output of an exec is cut short");
        }
    }

    /// What was kept.
    pub fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.kept)
    }
}

async fn keep(mut stream: impl AsyncRead + Unpin, kept: &mut Vec<u8>, budget: &Budget) -> io::Result<()> {
    let mut chunk = vec![0; CHUNK];
    loop {
        let count = stream.read(&mut chunk).await?;
        if count == 0 {
            return Ok(());
        }
        kept.extend_from_slice(&chunk[..budget.take(count)]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn both_streams_share_one_bound_and_the_rest_is_drained() {
        let budget = Budget::new(100_000);
        let (mut first, mut second) = (Vec::new(), Vec::new());
        keep(&vec![1u8; 90_000][..], &mut first, &budget).await.unwrap();
        keep(&vec![2u8; 90_000][..], &mut second, &budget).await.unwrap();
        assert_eq!((first.len(), second.len()), (90_000, 10_000));
    }

    #[tokio::test]
    async fn what_was_read_is_kept_when_cut_short() {
        use tokio::io::AsyncWriteExt;
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
                    () = &mut filling => panic!("the stream has not ended"),
                    () = tokio::task::yield_now() => {}
                }
            }
        }
        assert_eq!(capture.take(), b"hello");
        drop(socket);
        assert!(!path.exists());
    }
}
