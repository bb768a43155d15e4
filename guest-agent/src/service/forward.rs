//! A connection to a TCP port within the pod, for a client of port-forward.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use a3s_box_proto::stream::{FrameReader, Kind, Source, StreamError, Taken, carry, write_frame};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, tcp},
    time::timeout,
};

use super::streams::refuse;
use crate::stream::{Bulk, Flow};

/// Loopback answers at once, or not at all where a full backlog drops what comes.
const DIAL_PATIENCE: Duration = Duration::from_secs(10);

/// Dials the port, and carries bytes both ways until both sides have ended.
pub async fn serve(
    port: u32,
    from_host: &mut FrameReader<impl AsyncRead + Unpin>,
    to_host: &mut (impl AsyncWrite + Unpin),
    bulk: &Arc<Bulk>,
) -> Result<(), StreamError> {
    let mut stream = match dial(port).await {
        Ok(stream) => stream,
        Err(error) => {
            return refuse(to_host, &format!("dial tcp 127.0.0.1:{port} and [::1]:{port}: {error}")).await;
        }
    };
    write_frame(to_host, Kind::Opened, &0u64.to_be_bytes()).await.map_err(StreamError::Connection)?;
    let (read, mut write) = stream.split();
    let mut served = Served { flow: Flow::new(read), bulk };
    carry(from_host, to_host, &mut served, &mut write, None).await
}

/// What the server in the pod sends.
struct Served<'a> {
    flow: Flow<tcp::ReadHalf<'a>>,
    bulk: &'a Arc<Bulk>,
}

impl Source for Served<'_> {
    async fn take(&mut self, buffer: &mut [u8]) -> io::Result<Taken> {
        self.flow.take(self.bulk, buffer).await
    }
}

/// Loopback of either family: IPv4 first, as most servers listen there. The error is that of the first.
async fn dial(port: u32) -> io::Result<TcpStream> {
    let port = u16::try_from(port).map_err(|_| io::Error::other("no such port"))?;
    let first = match connect((Ipv4Addr::LOCALHOST, port).into()).await {
        Ok(stream) => return Ok(stream),
        Err(error) => error,
    };
    connect((Ipv6Addr::LOCALHOST, port).into()).await.map_err(|_| first)
}

async fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = timeout(DIAL_PATIENCE, TcpStream::connect(address)).await.map_err(io::Error::from)??;
    stream.set_nodelay(true)?;
    Ok(stream)
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt, duplex, split},
        net::TcpListener,
    };

    use super::*;

    #[tokio::test]
    async fn a_port_on_either_loopback_is_found_and_answers_after_the_end() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let listener = TcpListener::bind(address).await.unwrap();
            let port = listener.local_addr().unwrap().port();
            let (near, far) = duplex(100_000);
            tokio::spawn(async move {
                let (read, mut write) = split(far);
                serve(port.into(), &mut FrameReader::new(read), &mut write, &Arc::default()).await.unwrap();
            });
            let (read, mut to_guest) = split(near);
            let mut from_guest = FrameReader::new(read);
            assert_eq!(from_guest.next().await.unwrap().0, Kind::Opened);
            let (mut served, _) = listener.accept().await.unwrap();
            write_frame(&mut to_guest, Kind::Data, b"question").await.unwrap();
            write_frame(&mut to_guest, Kind::End, &[]).await.unwrap();
            let mut question = String::new();
            served.read_to_string(&mut question).await.unwrap();
            assert_eq!(question, "question");
            served.write_all(b"answer").await.unwrap();
            drop(served);
            let mut answer = Vec::new();
            loop {
                match from_guest.next().await.unwrap() {
                    (Kind::Data, bytes) => answer.extend_from_slice(bytes),
                    (Kind::End, _) => break,
                    (Kind::Ack, _) => {}
                    (kind, _) => panic!("{kind:?}"),
                }
            }
            assert_eq!(answer, b"answer");
        }
    }

    #[tokio::test]
    async fn a_port_where_nobody_listens_is_refused_in_words() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        let (near, far) = duplex(1000);
        let (read, mut write) = split(far);
        serve(port.into(), &mut FrameReader::new(read), &mut write, &Arc::default()).await.unwrap();
        let (read, _write) = split(near);
        let mut from_guest = FrameReader::new(read);
        let (kind, text) = from_guest.next().await.unwrap();
        assert_eq!(kind, Kind::Error);
        assert!(String::from_utf8_lossy(text).contains("refused"));
    }
}
