//! Bytes both ways over one connection, each direction with an end of its own: a forwarded TCP connection.
//!
//! ```text
//! sender ── DATA bytes ─────▶ receiver        at most AHEAD bytes beyond the last ACK
//! sender ── END ────────────▶ receiver        handed on as a shutdown
//! sender ◀── ACK u64 ──────── receiver        what was handed on so far, in all: bytes, and one more for the END;
//!                                             each ACK_EVERY bytes
//! ```
//!
//! A connection that breaks breaks both directions, as with TCP itself.

use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    sync::{Notify, watch},
};

use super::{
    ACK_EVERY, FrameError, FrameReader, Kind, StreamError, WINDOW,
    frame::{CHUNK, HEADER, header},
    parse_offset, write_frame,
};

/// How far a sender may be ahead of what was handed on. Less than the 256 KiB that a guest's vsock keeps for a
/// connection: a backend that finds them full asks for room without end.
const AHEAD: usize = WINDOW / 2;

/// Carries bytes between a connection with a peer and a local stream until both directions have ended. Neither waits
/// for the other: a local stream that does not take its bytes holds nothing up but their sender.
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
    let (sent, arrived) = (Sent::default(), Arrived::default());
    tokio::try_join!(
        send(local_read, &to_peer, &sent),
        receive(from_peer, &arrived, &sent),
        hand_on(&arrived, local_write, &to_peer),
    )
    .map(drop)
}

/// What was sent, and how much of it the peer has handed on.
#[derive(Default)]
struct Sent {
    bytes: AtomicU64,
    ended: AtomicBool,
    acknowledged: watch::Sender<u64>,
}

impl Sent {
    fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Waits until more may be sent, and says how much.
    async fn room(&self) -> usize {
        let ahead = |acknowledged: u64| (self.bytes() - acknowledged) as usize;
        let mut acknowledged = self.acknowledged.subscribe();
        // The sender of the watch is borrowed: it cannot go.
        let _ = acknowledged.wait_for(|acknowledged| ahead(*acknowledged) < AHEAD).await;
        AHEAD - ahead(*acknowledged.borrow())
    }

    /// Takes the peer's word; says whether it has all, the end included.
    fn acknowledge(&self, total: u64) -> Result<bool, StreamError> {
        let (bytes, ended) = (self.bytes(), self.ended.load(Ordering::Relaxed));
        if ended && total == bytes + 1 {
            return Ok(true);
        }
        if total > bytes || total < *self.acknowledged.borrow() {
            return Err(StreamError::Protocol("acknowledged what was not sent"));
        }
        self.acknowledged.send_replace(total);
        Ok(false)
    }
}

/// What came from the peer and was not handed on yet.
#[derive(Default)]
struct Arrived {
    state: Mutex<(Vec<u8>, bool)>,
    changed: Notify,
}

impl Arrived {
    fn push(&self, bytes: &[u8]) -> Result<(), StreamError> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.0.len() + bytes.len() > AHEAD {
            return Err(StreamError::Protocol("sent more than there is room for"));
        }
        state.0.extend_from_slice(bytes);
        drop(state);
        self.changed.notify_one();
        Ok(())
    }

    fn end(&self) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).1 = true;
        self.changed.notify_one();
    }

    /// Exchanges what was taken before for all that is there; nothing at the end.
    async fn next(&self, taken: &mut Vec<u8>) {
        taken.clear();
        loop {
            {
                let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
                if !state.0.is_empty() || state.1 {
                    return std::mem::swap(&mut state.0, taken);
                }
            }
            self.changed.notified().await;
        }
    }
}

async fn send<W: AsyncWrite + Unpin>(
    local_read: &mut (impl AsyncRead + Unpin),
    to_peer: &tokio::sync::Mutex<&mut W>,
    sent: &Sent,
) -> Result<(), StreamError> {
    let mut frame = vec![0; HEADER + CHUNK];
    loop {
        let room = sent.room().await.min(CHUNK);
        let read = local_read.read(&mut frame[HEADER..HEADER + room]).await;
        let count = read.map_err(StreamError::Local)?;
        let kind = if count == 0 { Kind::End } else { Kind::Data };
        frame[..HEADER].copy_from_slice(&header(kind, count));
        sent.bytes.fetch_add(count as u64, Ordering::Relaxed);
        sent.ended.store(count == 0, Ordering::Relaxed);
        let mut to_peer = to_peer.lock().await;
        to_peer.write_all(&frame[..HEADER + count]).await.map_err(StreamError::Local)?;
        to_peer.flush().await.map_err(StreamError::Local)?;
        if count == 0 {
            return Ok(());
        }
    }
}

async fn receive(
    from_peer: &mut FrameReader<impl AsyncRead + Unpin>,
    arrived: &Arrived,
    sent: &Sent,
) -> Result<(), StreamError> {
    let (mut acknowledged, mut ended) = (false, false);
    while !(acknowledged && ended) {
        match from_peer.next().await {
            Ok((Kind::Data, bytes)) if !ended => arrived.push(bytes)?,
            Ok((Kind::End, _)) if !ended => {
                ended = true;
                arrived.end();
            }
            Ok((Kind::Ack, total)) if !acknowledged => {
                acknowledged = sent.acknowledge(parse_offset(total)?)?;
            }
            Ok(_) => return Err(StreamError::Protocol("DATA, one END and ACKs were expected")),
            // This side has all that there is; what is missing is only the peer's word for the other.
            Err(FrameError::Connection(_)) if ended => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

async fn hand_on<W: AsyncWrite + Unpin>(
    arrived: &Arrived,
    local_write: &mut (impl AsyncWrite + Unpin),
    to_peer: &tokio::sync::Mutex<&mut W>,
) -> Result<(), StreamError> {
    let (mut total, mut acknowledged) = (0, 0);
    let mut bytes = Vec::new();
    loop {
        arrived.next(&mut bytes).await;
        if bytes.is_empty() {
            local_write.shutdown().await.map_err(StreamError::Local)?;
            // A peer that has gone has no use for it.
            let _ = write_frame(*to_peer.lock().await, Kind::Ack, &u64::to_be_bytes(total + 1)).await;
            return Ok(());
        }
        local_write.write_all(&bytes).await.map_err(StreamError::Local)?;
        total += bytes.len() as u64;
        if total - acknowledged >= ACK_EVERY {
            acknowledged = total;
            let told = write_frame(*to_peer.lock().await, Kind::Ack, &total.to_be_bytes()).await;
            told.map_err(StreamError::Local)?;
        }
    }
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
    async fn two_who_write_before_they_read_are_no_deadlock() {
        let (near, far) = duplex(1000);
        let (client, client_end) = duplex(100);
        let (mut server, server_end) = duplex(100);
        let carrying =
            tokio::spawn(async move { tokio::try_join!(end(near, client_end), end(far, server_end)) });
        let bytes = vec![7; 100_000];
        let served = {
            let bytes = bytes.clone();
            // It takes nothing before it has given all.
            tokio::spawn(async move {
                server.write_all(&bytes).await.unwrap();
                let mut got = Vec::new();
                server.read_to_end(&mut got).await.unwrap();
                server.shutdown().await.unwrap();
                got
            })
        };
        let (mut read, mut write) = split(client);
        let writing = async {
            write.write_all(&bytes).await.unwrap();
            write.shutdown().await.unwrap();
        };
        let mut got = Vec::new();
        let reading = async { read.read_to_end(&mut got).await.unwrap() };
        tokio::join!(writing, reading);
        assert!(got == bytes && served.await.unwrap() == bytes);
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
