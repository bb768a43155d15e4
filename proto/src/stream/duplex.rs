//! Bytes both ways over one connection, each direction with an end of its own: a forwarded TCP connection.
//!
//! ```text
//! sender ── DATA bytes ─────▶ receiver        at most AHEAD bytes beyond the last ACK
//! sender ── PLACED u32 u32 ─▶ receiver        the next bytes are in a file of both; at most MOST_SLOTS of them beyond it
//! sender ── END ────────────▶ receiver        handed on as a shutdown
//! sender ◀── ACK u64 ──────── receiver        what was handed on so far, in all: bytes, and one more for the END;
//!                                             each ACK_EVERY bytes and each PLACED
//! ```
//!
//! A connection that breaks breaks both directions, as with TCP itself; what came whole before is handed on all the same.

mod arrived;
mod sent;

use std::{convert::Infallible, future::pending, pin::pin, time::Duration};

use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt},
    time::timeout,
};

use self::{
    arrived::{Arrived, Part},
    sent::Sent,
};
use super::{
    ACK_EVERY, BulkFile, FrameReader, Kind, Source, StreamError, Taken, WINDOW,
    bulk::{MOST_SLOTS, NO_FILE, PIECE, Place},
    frame::{CHUNK, HEADER, header},
    held::placed_frame,
    parse_offset, write_frame,
};

/// How far a sender may be ahead of what was handed on. Less than the 256 KiB that a guest's vsock keeps for a
/// connection: a backend that finds them full asks for room without end.
const AHEAD: usize = WINDOW / 2;
/// How long a local stream may take for what a peer said before it went.
const LAST_WORDS: Duration = Duration::from_secs(30);

/// Carries bytes between a connection with a peer and a local stream until both directions have ended. Neither waits
/// for the other: a local stream that does not take its bytes holds nothing up but their sender. The peer may put many
/// bytes into `bulk`, where there is one.
///
/// # Errors
/// The peer breaks the protocol, the connection breaks, or the local stream does.
pub async fn carry(
    from_peer: &mut FrameReader<impl AsyncRead + Unpin>,
    to_peer: &mut (impl AsyncWrite + Unpin),
    local_read: &mut impl Source,
    local_write: &mut (impl AsyncWrite + Unpin),
    bulk: Option<&BulkFile>,
) -> Result<(), StreamError> {
    let to_peer = tokio::sync::Mutex::new(to_peer);
    let (sent, arrived) = (Sent::default(), Arrived::default());
    let mut handing_on = pin!(hand_on(&arrived, local_write, &to_peer, bulk));
    let whole = async {
        tokio::try_join!(send(local_read, &to_peer, &sent), &mut handing_on)?;
        sent.confirmed().await;
        Ok(())
    };
    // The peer is listened to until the end: nothing else tells that it has gone.
    let broken = tokio::select! {
        biased;
        broken = receive(from_peer, &arrived, &sent) => broken,
        whole = whole => return whole,
    };
    if !matches!(broken, StreamError::Connection(_)) || !arrived.is_whole() {
        return Err(broken);
    }
    if !arrived.is_handed_on() {
        timeout(LAST_WORDS, handing_on).await.map_err(|late| StreamError::Local(late.into()))??;
    }
    // What is missing is only the peer's word that it has all, too.
    if sent.has_ended() { Ok(()) } else { Err(broken) }
}

async fn send<W: AsyncWrite + Unpin>(
    local_read: &mut impl Source,
    to_peer: &tokio::sync::Mutex<&mut W>,
    sent: &Sent,
) -> Result<(), StreamError> {
    let mut frame = vec![0; HEADER + CHUNK];
    loop {
        let room = sent.room().await.min(CHUNK);
        let taken = local_read.take(&mut frame[HEADER..HEADER + room]).await;
        let (placed, frame, ended) = match taken.map_err(StreamError::Local)? {
            Taken::Read(count) => {
                sent.read(count);
                let kind = if count == 0 { Kind::End } else { Kind::Data };
                frame[..HEADER].copy_from_slice(&header(kind, count));
                (Vec::new(), &frame[..HEADER + count], count == 0)
            }
            Taken::Placed(placed) => {
                let told = placed_frame(placed.place());
                sent.place(placed);
                (told, &[][..], false)
            }
        };
        let mut to_peer = to_peer.lock().await;
        let told = async {
            to_peer.write_all(&placed).await?;
            to_peer.write_all(frame).await?;
            to_peer.flush().await
        };
        if told.await.is_err() {
            // The peer has gone: that shows behind what it said last.
            drop(to_peer);
            return pending().await;
        }
        if ended {
            return Ok(());
        }
    }
}

/// Until the connection breaks, or the peer breaks the protocol.
async fn receive(
    from_peer: &mut FrameReader<impl AsyncRead + Unpin>,
    arrived: &Arrived,
    sent: &Sent,
) -> StreamError {
    let receiving = async {
        loop {
            match from_peer.next().await? {
                (Kind::Data, bytes) => arrived.push(bytes)?,
                (Kind::Placed, place) => arrived.place(Place::parse(place)?)?,
                (Kind::End, _) => arrived.end()?,
                (Kind::Ack, total) => sent.acknowledge(parse_offset(total)?)?,
                _ => {
                    let wrong = StreamError::Protocol("DATA, PLACED, END and ACKs were expected");
                    return Err::<Infallible, _>(wrong);
                }
            }
        }
    };
    let Err(broken) = receiving.await;
    broken
}

async fn hand_on<W: AsyncWrite + Unpin>(
    arrived: &Arrived,
    local_write: &mut (impl AsyncWrite + Unpin),
    to_peer: &tokio::sync::Mutex<&mut W>,
    bulk: Option<&BulkFile>,
) -> Result<(), StreamError> {
    let (mut total, mut acknowledged) = (0, 0);
    let mut spent = Vec::new();
    while let Some(part) = arrived.next(std::mem::take(&mut spent)).await {
        let due = match part {
            Part::Bytes(bytes) => {
                local_write.write_all(&bytes).await.map_err(StreamError::Local)?;
                total += bytes.len() as u64;
                spent = bytes;
                total - acknowledged >= ACK_EVERY
            }
            Part::Placed(place) => {
                total += place.len() as u64;
                fetch(place, bulk, local_write).await?;
                arrived.fetched();
                // The sender needs the slot.
                true
            }
        };
        if due {
            acknowledged = total;
            // A peer that has gone has no use for it, nor for the last one.
            let _ = write_frame(*to_peer.lock().await, Kind::Ack, &total.to_be_bytes()).await;
        }
    }
    local_write.shutdown().await.map_err(StreamError::Local)?;
    arrived.handed_on();
    let _ = write_frame(*to_peer.lock().await, Kind::Ack, &u64::to_be_bytes(total + 1)).await;
    Ok(())
}

async fn fetch(
    place: Place,
    bulk: Option<&BulkFile>,
    local_write: &mut (impl AsyncWrite + Unpin),
) -> Result<(), StreamError> {
    let bulk = bulk.ok_or(NO_FILE)?;
    let mut bytes = vec![0; PIECE.min(place.len())];
    for piece in place.pieces(PIECE) {
        let bytes = &mut bytes[..piece.len()];
        bulk.read(&piece, bytes)?;
        local_write.write_all(bytes).await.map_err(StreamError::Local)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt, DuplexStream, duplex, split},
        time::Instant,
    };

    use super::*;
    use crate::stream::testing::{Alternating, bulk_file};

    async fn end(peer: DuplexStream, local: DuplexStream) -> Result<(), StreamError> {
        let (read, mut write) = split(peer);
        let (mut local_read, mut local_write) = split(local);
        carry(&mut FrameReader::new(read), &mut write, &mut local_read, &mut local_write, None).await
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
    async fn many_bytes_go_through_a_file_in_their_order() {
        let (near, far) = duplex(1000);
        let (file, bulk) = bulk_file();
        let data: Vec<u8> = (0..9_000_000u32).map(|n| (n % 251) as u8).collect();
        let mut source = Alternating::new(data.clone(), file);
        let (mut client, client_end) = duplex(100_000);
        let sending = async {
            let (read, mut write) = split(near);
            carry(&mut FrameReader::new(read), &mut write, &mut source, &mut tokio::io::sink(), None).await
        };
        let receiving = async {
            let (read, mut write) = split(far);
            let (mut local_read, mut local_write) = split(client_end);
            let reader = &mut FrameReader::new(read);
            carry(reader, &mut write, &mut local_read, &mut local_write, Some(&bulk)).await
        };
        let mut got = Vec::new();
        let showing = async {
            client.read_to_end(&mut got).await.unwrap();
            client.shutdown().await.unwrap();
            Ok(())
        };
        tokio::try_join!(sending, receiving, showing).unwrap();
        assert!(got == data && source.slots_are_free());
    }

    #[tokio::test]
    async fn a_peer_that_places_too_much_or_where_nothing_is_shared_is_refused() {
        for (bulk, most) in [(None, 1), (Some(bulk_file().1), MOST_SLOTS + 2)] {
            let (near, mut far) = duplex(1000);
            let (_client, client_end) = duplex(100);
            let (mut local_read, mut local_write) = split(client_end);
            let (read, mut write) = split(near);
            for _ in 0..most {
                write_frame(&mut far, Kind::Placed, &[0, 0, 0, 0, 0, 0, 1, 0]).await.unwrap();
            }
            let reader = &mut FrameReader::new(read);
            let carried = carry(reader, &mut write, &mut local_read, &mut local_write, bulk.as_ref()).await;
            assert!(matches!(carried, Err(StreamError::Protocol(_))), "{carried:?}");
        }
    }

    /// What it said reaches the local stream, which has some time for it; the rest of that stream nobody wants.
    #[tokio::test(start_paused = true)]
    async fn a_peer_that_has_said_all_may_go() {
        for reads in [true, false] {
            let (near, mut far) = duplex(10_000);
            let (mut server, server_end) = duplex(100);
            write_frame(&mut far, Kind::Data, &[7; 1000]).await.unwrap();
            write_frame(&mut far, Kind::End, &[]).await.unwrap();
            drop(far);
            let start = Instant::now();
            let carrying = tokio::spawn(end(near, server_end));
            if reads {
                let mut got = Vec::new();
                server.read_to_end(&mut got).await.unwrap();
                assert_eq!(got, [7; 1000]);
            }
            let carried = carrying.await.unwrap();
            match reads {
                true => assert!(matches!(carried, Err(StreamError::Connection(_))), "{carried:?}"),
                false => assert!(matches!(carried, Err(StreamError::Local(_))), "{carried:?}"),
            }
            assert_eq!(start.elapsed(), if reads { Duration::ZERO } else { LAST_WORDS });
        }
    }

    #[tokio::test]
    async fn a_broken_connection_and_a_lying_peer_are_errors() {
        let (near, far) = duplex(1000);
        let (_client, client_end) = duplex(100);
        drop(far);
        assert!(matches!(end(near, client_end).await, Err(StreamError::Connection(_))));

        let (near, mut far) = duplex(1000);
        let (_client, client_end) = duplex(100);
        far.write_all(&header(Kind::Opened, 0)).await.unwrap();
        assert!(matches!(end(near, client_end).await, Err(StreamError::Protocol(_))));
    }
}
