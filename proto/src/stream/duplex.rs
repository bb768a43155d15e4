//! Bytes both ways over one connection, each direction with an end of its own: a forwarded TCP connection.
//!
//! The vsock backend has a window of its own and holds a fast sender back, so nothing is acknowledged but the ends; a
//! broken connection breaks both directions, as with TCP itself.

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::{
    FrameError, FrameReader, Kind, MAX_PAYLOAD, StreamError,
    frame::{HEADER, header},
};

/// Carries bytes between a connection with a peer and a local stream until both directions have ended: an END is
/// handed on as a shutdown, and acknowledged then, so that nobody closes what is still on its way.
///
/// # Errors
/// The peer breaks the protocol, the connection breaks, or the local stream does.
pub async fn carry(
    from_peer: &mut FrameReader<impl AsyncRead + Unpin>,
    to_peer: &mut (impl AsyncWrite + Unpin),
    local_read: &mut (impl AsyncRead + Unpin),
    local_write: &mut (impl AsyncWrite + Unpin),
) -> Result<(), StreamError> {
    let to_peer = tokio::sync::Mutex::new(to_peer);
    let outward = async {
        let mut frame = vec![0; HEADER + MAX_PAYLOAD];
        loop {
            let count = local_read.read(&mut frame[HEADER..]).await.map_err(StreamError::Local)?;
            let kind = if count == 0 { Kind::End } else { Kind::Data };
            frame[..HEADER].copy_from_slice(&header(kind, count));
            let mut to_peer = to_peer.lock().await;
            to_peer.write_all(&frame[..HEADER + count]).await.map_err(StreamError::Local)?;
            if count == 0 {
                return Ok(());
            }
        }
    };
    let inward = async {
        let (mut acknowledged, mut ended) = (false, false);
        while !(acknowledged && ended) {
            match from_peer.next().await {
                Ok((Kind::Data, bytes)) if !ended => {
                    local_write.write_all(bytes).await.map_err(StreamError::Local)?;
                }
                Ok((Kind::End, _)) if !ended => {
                    ended = true;
                    local_write.shutdown().await.map_err(StreamError::Local)?;
                    let mut to_peer = to_peer.lock().await;
                    to_peer.write_all(&header(Kind::Ack, 0)).await.map_err(StreamError::Local)?;
                }
                Ok((Kind::Ack, _)) if !acknowledged => acknowledged = true,
                Ok(_) => return Err(StreamError::Protocol("DATA, one END and one ACK were expected")),
                // Both ends were sent and this side has all: what is missing is only the peer's word.
                Err(FrameError::Connection(_)) if ended => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    };
    tokio::try_join!(outward, inward).map(drop)
}

#[cfg(test)]
mod tests {
    use tokio::io::{DuplexStream, duplex, split};

    use super::*;

    async fn end(peer: DuplexStream, local: DuplexStream) -> Result<(), StreamError> {
        let (read, mut write) = split(peer);
        let (mut local_read, mut local_write) = split(local);
        carry(&mut FrameReader::new(read), &mut write, &mut local_read, &mut local_write).await
    }

    #[tokio::test]
    async fn an_answer_comes_after_the_end_of_the_question() {
        let (near, far) = duplex(1000);
        let (mut client, client_end) = duplex(100);
        let (mut server, server_end) = duplex(100);
        let carrying =
            tokio::spawn(async move { tokio::try_join!(end(near, client_end), end(far, server_end)) });
        let question = vec![7; 300_000];
        let answer = vec![8; 200_000];
        let served = {
            let answer = answer.clone();
            tokio::spawn(async move {
                let mut got = Vec::new();
                server.read_to_end(&mut got).await.unwrap();
                server.write_all(&answer).await.unwrap();
                server.shutdown().await.unwrap();
                got
            })
        };
        client.write_all(&question).await.unwrap();
        client.shutdown().await.unwrap();
        let mut got = Vec::new();
        client.read_to_end(&mut got).await.unwrap();
        assert!(got == answer && served.await.unwrap() == question);
        carrying.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn a_broken_connection_and_a_lying_peer_are_errors() {
        let (near, far) = duplex(1000);
        let (_client, client_end) = duplex(100);
        drop(far);
        assert!(matches!(end(near, client_end).await, Err(StreamError::Local(_))));

        let (near, mut far) = duplex(1000);
        let (_client, client_end) = duplex(100);
        far.write_all(&header(Kind::Opened, 0)).await.unwrap();
        assert!(matches!(end(near, client_end).await, Err(StreamError::Protocol(_))));
    }
}
