//! Sockets of the frontend's: a half-close is a stream's end, and a close without one says that it broke off.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, Interest, ReadBuf},
    net::UnixStream,
};

/// An output's way to the frontend. Its shutdown is done when the frontend has let it go: until then it must not be
/// closed.
#[derive(Debug)]
pub struct SocketSink(UnixStream);

impl SocketSink {
    /// Over a connected socket.
    pub fn new(socket: UnixStream) -> Self {
        Self(socket)
    }
}

impl AsyncWrite for SocketSink {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.0).poll_shutdown(context))?;
        loop {
            let mut byte = [0];
            let mut buffer = ReadBuf::new(&mut byte);
            let read = ready!(Pin::new(&mut self.0).poll_read(context, &mut buffer));
            if read.is_err() || buffer.filled().is_empty() {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

/// Waits until the other side has closed a socket on which this one never writes. What it sent before may still be
/// unread.
pub async fn closed(socket: &UnixStream) {
    loop {
        match socket.ready(Interest::WRITABLE).await {
            Ok(ready) if !ready.is_write_closed() => {}
            _ => return,
        }
        // That it can be written to is no news: the next is waited for.
        let _ = socket.try_io(Interest::WRITABLE, || Err::<(), _>(io::ErrorKind::WouldBlock.into()));
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn a_shutdown_waits_for_the_reader() {
        let (near, mut far) = UnixStream::pair().unwrap();
        let mut sink = SocketSink::new(near);
        sink.write_all(b"all").await.unwrap();
        let ending = tokio::spawn(async move { sink.shutdown().await });
        let mut got = Vec::new();
        far.read_to_end(&mut got).await.unwrap();
        assert_eq!(got, b"all");
        assert!(!ending.is_finished());
        drop(far);
        ending.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn a_close_is_seen_behind_unread_bytes_and_a_half_close_is_none() {
        let (near, mut far) = UnixStream::pair().unwrap();
        far.write_all(b"unread").await.unwrap();
        far.shutdown().await.unwrap();
        let mut closing = std::pin::pin!(closed(&near));
        tokio::select! {
            biased;
            () = &mut closing => panic!("it is only half closed"),
            () = async { for _ in 0..100 { tokio::task::yield_now().await } } => {}
        }
        drop(far);
        closing.await;
    }
}
