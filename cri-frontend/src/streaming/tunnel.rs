//! A connection of bytes through a WebSocket's binary messages: SPDY is spoken in it (`SPDY/3.1+portforward.k8s.io`).

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use futures::{Sink, Stream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{Error, Message, protocol::Role},
};

use super::websocket;

/// The most that one message carries.
const MESSAGE_BYTES: usize = 64 * 1024;

/// The bytes within a WebSocket.
#[derive(Debug)]
pub struct Tunnel<C> {
    stream: WebSocketStream<C>,
    /// Of the last message, what was not read yet.
    rest: Bytes,
}

impl<C: AsyncRead + AsyncWrite + Unpin> Tunnel<C> {
    /// Takes over a connection after its handshake.
    pub async fn open(connection: C) -> Self {
        let stream =
            WebSocketStream::from_raw_socket(connection, Role::Server, Some(websocket::config())).await;
        Self { stream, rest: Bytes::new() }
    }
}

impl<C: AsyncRead + AsyncWrite + Unpin> AsyncRead for Tunnel<C> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while self.rest.is_empty() {
            match ready!(Pin::new(&mut self.stream).poll_next(cx)) {
                Some(Ok(Message::Binary(bytes))) => self.rest = bytes,
                Some(Ok(Message::Close(_))) | None => return Poll::Ready(Ok(())),
                Some(Ok(Message::Text(_))) => {
                    return Poll::Ready(Err(io::Error::new(
                        io::ErrorKind::InvalidData,
                        "a tunnel carries binary messages only",
                    )));
                }
                Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => {}
                Some(Err(error)) => return Poll::Ready(Err(to_io(error))),
            }
        }
        let part = self.rest.len().min(buf.remaining());
        buf.put_slice(&self.rest[..part]);
        self.rest.advance(part);
        Poll::Ready(Ok(()))
    }
}

impl<C: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Tunnel<C> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        ready!(Pin::new(&mut self.stream).poll_ready(cx)).map_err(to_io)?;
        let part = &bytes[..bytes.len().min(MESSAGE_BYTES)];
        let message = Message::Binary(Bytes::copy_from_slice(part));
        Pin::new(&mut self.stream).start_send(message).map_err(to_io)?;
        Poll::Ready(Ok(part.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx).map_err(to_io)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_close(cx).map_err(to_io)
    }
}

fn to_io(error: Error) -> io::Error {
    match error {
        Error::Io(error) => error,
        Error::ConnectionClosed | Error::AlreadyClosed => io::ErrorKind::BrokenPipe.into(),
        error => io::Error::other(error),
    }
}

#[cfg(test)]
mod tests {
    use futures::{SinkExt, StreamExt};
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    #[tokio::test]
    async fn bytes_pass_whatever_the_messages() {
        let (near, far) = duplex(1 << 20);
        let mut tunnel = Tunnel::open(far).await;
        let mut client = WebSocketStream::from_raw_socket(near, Role::Client, None).await;
        for part in ["ab", "", "cde"] {
            client.send(Message::Binary(part.into())).await.unwrap();
        }
        let mut got = [0; 5];
        tunnel.read_exact(&mut got).await.unwrap();
        assert_eq!(&got, b"abcde");
        tunnel.write_all(b"answer").await.unwrap();
        tunnel.flush().await.unwrap();
        assert_eq!(client.next().await.unwrap().unwrap(), Message::Binary("answer".into()));
        client.close(None).await.unwrap();
        assert_eq!(tunnel.read(&mut got).await.unwrap(), 0);
    }
}
