//! From the opening of a stream to the end of its session.

use std::time::Duration;

use bytes::Bytes;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::{Instant, advance},
};

use super::peer::{Peer, end, id, pattern, soon, start};
use crate::{
    Config, Ended, Headers, ResetStatus, Session, SessionError, StreamError,
    frame::{Frame, GoAwayStatus},
};

fn reset(stream: u32, status: ResetStatus) -> Option<Frame> {
    Some(Frame::RstStream { id: id(stream), status })
}

fn go_away(last_good: u32) -> Option<Frame> {
    Some(Frame::GoAway { last_good, status: GoAwayStatus::Ok })
}

/// Reads to the connection's end, closes it, and sees the session finished.
async fn finished(mut peer: Peer, driven: super::peer::Driven, last: u32) {
    assert_eq!(peer.next().await, go_away(last));
    assert_eq!(peer.next().await, None);
    drop(peer);
    assert_eq!(end(driven).await.unwrap(), Ended::Finished);
}

#[tokio::test(start_paused = true)]
async fn a_stream_is_opened_answered_half_closed_and_finished() {
    let (mut peer, mut session, driven) = start(&Config::default());
    let headers: Headers = [("streamtype", "data"), ("port", "80")].into_iter().collect();
    let block = peer.block(&headers);
    peer.send(Frame::SynStream {
        id: id(5),
        associated: Some(id(3)),
        priority: 7,
        fin: false,
        unidirectional: false,
        block,
    })
    .await;
    peer.data(5, "what ").await;
    peer.data(5, "is it?").await;
    peer.fin(5).await;

    let incoming = soon(session.accept()).await.unwrap();
    assert_eq!((incoming.id(), incoming.associated(), incoming.priority()), (id(5), Some(id(3)), 7));
    assert!(!incoming.is_finished() && !incoming.is_unidirectional());
    assert_eq!(incoming.headers(), &headers);
    let reply: Headers = [("x-one", "1"), ("x-two", "2")].into_iter().collect();
    let mut stream = incoming.reply(&reply).unwrap();
    assert_eq!(peer.reply(5).await, reply);

    let mut question = String::new();
    soon(stream.recv.read_to_string(&mut question)).await.unwrap();
    assert_eq!(question, "what is it?");
    assert_eq!(soon(stream.recv.recv()).await, Ok(None));
    drop(stream.recv);
    // The peer is done, and we are not: the stream lives on.
    stream.send.write_all(b"an answer").await.unwrap();
    stream.send.shutdown().await.unwrap();
    assert_eq!(stream.send.send(Bytes::from_static(b"more")).await, Err(StreamError::Finished));
    assert_eq!(peer.read_to_end(5).await, b"an answer");

    drop(stream.send);
    drop(session);
    finished(peer, driven, 5).await;
}

/// All that was queued comes before the session's end, in the order of each stream.
#[tokio::test(start_paused = true)]
async fn nothing_queued_is_lost_at_the_end() {
    let (mut peer, mut session, driven) = start(&Config::default());
    let data = pattern(3 * super::peer::PIPE);
    let streams = [peer.accepted(&mut session, 1).await, peer.accepted(&mut session, 3).await];
    for mut stream in streams {
        stream.send.send(data.clone().into()).await.unwrap();
        stream.send.finish().unwrap();
    }
    drop(session);
    let (mut got, mut resets) = ([Vec::new(), Vec::new()], Vec::new());
    loop {
        match peer.next().await {
            Some(Frame::Data { id, bytes, .. }) => got[id.get() as usize / 2].extend_from_slice(&bytes),
            // Both owners are gone although the peer is not done: it is told, but after all data.
            Some(Frame::RstStream { id, status: ResetStatus::Cancel }) => resets.push(id.get()),
            frame => break assert_eq!(frame, go_away(3)),
        }
    }
    assert_eq!(resets, [1, 3]);
    assert!(got.iter().all(|got| *got == data));
    drop(peer);
    assert_eq!(end(driven).await.unwrap(), Ended::Finished);
}

#[tokio::test(start_paused = true)]
async fn what_is_dropped_is_told_to_the_peer() {
    let (mut peer, mut session, driven) = start(&Config::default());
    peer.open(1).await;
    drop(soon(session.accept()).await);
    assert_eq!(peer.next().await, reset(1, ResetStatus::RefusedStream));

    peer.open(3).await;
    soon(session.accept()).await.unwrap().refuse(ResetStatus::InternalError);
    assert_eq!(peer.next().await, reset(3, ResetStatus::InternalError));

    let mut stream = peer.accepted(&mut session, 5).await;
    drop(stream.send);
    assert_eq!(peer.next().await, reset(5, ResetStatus::Cancel));
    assert_eq!(soon(stream.recv.recv()).await, Err(StreamError::Cancelled));
    drop(stream.recv);

    let stream = peer.accepted(&mut session, 7).await;
    stream.send.reset(ResetStatus::Other(77));
    drop(stream.recv);
    assert_eq!(peer.next().await, reset(7, ResetStatus::Other(77)));

    // Nobody reads, but somebody still sends: what comes is thrown away, and the rest goes on.
    let mut stream = peer.accepted(&mut session, 9).await;
    drop(stream.recv);
    peer.data(9, pattern(4 << 20)).await;
    stream.send.send(Bytes::from_static(b"still here")).await.unwrap();
    stream.send.finish().unwrap();
    assert_eq!(peer.read_to_end(9).await, b"still here");
    assert_eq!(peer.next().await, reset(9, ResetStatus::Cancel));

    peer.open(11).await;
    peer.send(Frame::Ping(1)).await;
    assert_eq!(peer.next().await, Some(Frame::Ping(1)));
    drop(session);
    assert_eq!(peer.next().await, reset(11, ResetStatus::RefusedStream), "it was never accepted");
    finished(peer, driven, 11).await;
}

#[tokio::test(start_paused = true)]
async fn without_an_acceptor_streams_are_refused_and_old_ones_go_on() {
    let (mut peer, mut session, driven) = start(&Config::default());
    let mut stream = peer.accepted(&mut session, 1).await;
    drop(session);
    peer.open(3).await;
    assert_eq!(peer.next().await, reset(3, ResetStatus::RefusedStream));
    stream.send.send(Bytes::from_static(b"on")).await.unwrap();
    stream.send.finish().unwrap();
    assert_eq!(peer.read_to_end(1).await, b"on");
    peer.fin(1).await;
    assert_eq!(soon(stream.recv.recv()).await, Ok(None));
    drop(stream.recv);
    finished(peer, driven, 3).await;
}

#[tokio::test(start_paused = true)]
async fn one_way_streams() {
    let (mut peer, mut session, _driven) = start(&Config::default());
    for (stream, fin, unidirectional) in [(1, false, true), (3, true, false)] {
        let block = peer.block(&Headers::new());
        let (id, associated) = (id(stream), None);
        peer.send(Frame::SynStream { id, associated, priority: 0, fin, unidirectional, block }).await;
    }
    let incoming = soon(session.accept()).await.unwrap();
    assert!(incoming.is_unidirectional());
    let mut one = incoming.reply(&Headers::new()).unwrap();
    assert_eq!(one.send.send(Bytes::from_static(b"no")).await, Err(StreamError::Finished));
    peer.data(1, "yes").await;
    assert_eq!(soon(one.recv.recv()).await, Ok(Some(Bytes::from_static(b"yes"))));

    let incoming = soon(session.accept()).await.unwrap();
    assert!(incoming.is_finished());
    let mut other = incoming.reply(&Headers::new()).unwrap();
    // There was no reply to the one-way stream: this is the first frame.
    peer.reply(3).await;
    assert_eq!(soon(other.recv.recv()).await, Ok(None));
}

#[tokio::test(start_paused = true)]
async fn a_reset_by_the_peer_ends_both_halves() {
    let (mut peer, mut session, _driven) = start(&Config::default());
    let mut stream = peer.accepted(&mut session, 1).await;
    peer.data(1, "last words").await;
    peer.send(Frame::RstStream { id: id(1), status: ResetStatus::Cancel }).await;
    peer.send(Frame::Ping(1)).await;
    assert_eq!(peer.next().await, Some(Frame::Ping(1)));
    assert_eq!(soon(stream.recv.recv()).await, Ok(Some(Bytes::from_static(b"last words"))));
    let error = StreamError::Reset(ResetStatus::Cancel);
    assert_eq!(soon(stream.recv.recv()).await, Err(error));
    assert_eq!(stream.send.send(Bytes::from_static(b"?")).await, Err(error));
    assert_eq!(stream.send.finish(), Err(error));

    // One that was reset before it was accepted never appears; one that is reset before the reply can't be replied to.
    peer.open(3).await;
    peer.send(Frame::RstStream { id: id(3), status: ResetStatus::Cancel }).await;
    peer.open(5).await;
    let incoming = soon(session.accept()).await.unwrap();
    assert_eq!(incoming.id(), id(5));
    peer.send(Frame::RstStream { id: id(5), status: ResetStatus::Cancel }).await;
    peer.send(Frame::Ping(3)).await;
    assert_eq!(peer.next().await, Some(Frame::Ping(3)));
    assert_eq!(incoming.reply(&Headers::new()).unwrap_err(), error);
}

#[tokio::test(start_paused = true)]
async fn of_later_headers_the_end_counts() {
    let (mut peer, mut session, _driven) = start(&Config::default());
    let mut stream = peer.accepted(&mut session, 1).await;
    // Far more than one block may have: nothing of it is kept.
    let value = "x".repeat(40 << 10);
    for (fin, value) in [(false, value.as_str()), (false, value.as_str()), (true, "b")] {
        let block = peer.block(&[("trailer", value)].into_iter().collect());
        peer.send(Frame::Headers { id: id(1), fin, block }).await;
    }
    assert_eq!(soon(stream.recv.recv()).await, Ok(None));
}

#[tokio::test(start_paused = true)]
async fn the_end_of_the_connection_ends_everything() {
    for (tail, truncated) in
        [(&b""[..], false), (&[0x80, 3, 0][..], true), (&[0, 0, 0, 1, 0, 0, 0, 2, 1][..], true)]
    {
        let (mut peer, mut session, driven) = start(&Config::default());
        let mut stream = peer.accepted(&mut session, 1).await;
        peer.data(1, "rest").await;
        peer.bytes(tail).await;
        drop(peer);
        match end(driven).await {
            Ok(Ended::ByPeer) => assert!(!truncated),
            Err(SessionError::Truncated) => assert!(truncated),
            other => panic!("{other:?}"),
        }
        let rest = soon(stream.recv.recv()).await.unwrap().unwrap();
        assert_eq!(rest[..4], b"rest"[..]);
        assert_eq!(soon(stream.recv.recv()).await, Err(StreamError::SessionEnded));
        assert_eq!(stream.send.send(Bytes::from_static(b"?")).await, Err(StreamError::SessionEnded));
        assert!(soon(session.accept()).await.is_none());
    }
}

/// Owners that wait when the driver is dropped are told.
#[tokio::test(start_paused = true)]
async fn a_dropped_driver_closes_the_connection() {
    let (mut peer, mut session, driven) = start(&Config::default());
    let mut stream = peer.accepted(&mut session, 1).await;
    let waiting = tokio::spawn(async move { (stream.recv.recv().await, session.accept().await.is_none()) });
    tokio::task::yield_now().await;
    driven.abort();
    assert_eq!(soon(waiting).await.unwrap(), (Err(StreamError::SessionEnded), true));
    while peer.any().await.is_some() {}
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_goes_away_is_served_to_the_end() {
    let (mut peer, mut session, driven) = start(&Config::default());
    let mut stream = peer.accepted(&mut session, 1).await;
    peer.send(Frame::GoAway { last_good: 0, status: GoAwayStatus::Ok }).await;
    assert!(soon(session.accept()).await.is_none());
    peer.data(1, "the rest").await;
    peer.fin(1).await;
    assert_eq!(soon(stream.recv.recv()).await, Ok(Some(Bytes::from_static(b"the rest"))));
    stream.send.send(Bytes::from_static(b"and ours")).await.unwrap();
    stream.send.finish().unwrap();
    assert_eq!(peer.read_to_end(1).await, b"and ours");
    drop(stream.recv);
    finished(peer, driven, 1).await;
}

/// Ours have even ids, and we sent none: an even one is a late answer to somebody else's.
#[tokio::test(start_paused = true)]
async fn pings_are_answered() {
    let (mut peer, _session, _driven) = start(&Config::default());
    for ping in [1, 2, 0, u32::MAX] {
        peer.send(Frame::Ping(ping)).await;
    }
    assert_eq!(peer.next().await, Some(Frame::Ping(1)));
    assert_eq!(peer.next().await, Some(Frame::Ping(u32::MAX)));
}

#[tokio::test(start_paused = true)]
async fn only_data_and_streams_keep_a_session_awake() {
    let limit = Duration::from_secs(100);
    let (mut peer, mut session, driven) = start(&Config { idle_timeout: Some(limit), ..Config::default() });
    let begin = Instant::now();
    async fn later(peer: &mut Peer, session: &mut Session) -> crate::Stream {
        advance(Duration::from_secs(60)).await;
        peer.accepted(session, 1).await
    }
    let mut stream = later(&mut peer, &mut session).await;
    advance(Duration::from_secs(60)).await;
    peer.data(1, "in").await;
    soon(stream.recv.recv()).await.unwrap();
    advance(Duration::from_secs(60)).await;
    stream.send.send(Bytes::from_static(b"out")).await.unwrap();
    assert!(matches!(peer.next().await, Some(Frame::Data { .. })));
    advance(Duration::from_secs(60)).await;
    peer.send(Frame::Ping(1)).await;
    assert_eq!(peer.next().await, Some(Frame::Ping(1)));
    let waiting = tokio::spawn(async move { stream.recv.recv().await });
    assert_eq!(waiting.await.unwrap(), Err(StreamError::SessionEnded));
    assert_eq!(begin.elapsed().as_secs(), 60 * 3 + 100);
    assert_eq!(peer.next().await, go_away(1));
    drop(peer);
    assert!(matches!(end(driven).await, Err(SessionError::Idle(_))));
}
