//! Who waits for whom, and who does not.

use std::{collections::HashMap, time::Duration};

use bytes::Bytes;
use tokio::{io::AsyncWriteExt, time::timeout};

use super::peer::{Peer, end, id, pattern, soon, start};
use crate::{
    Config, FlowControl, ResetStatus, SessionError, StreamError,
    frame::{Frame, Setting, StreamId},
};

fn small() -> Config {
    Config { stream_window: 64 << 10, session_window: 256 << 10, ..Config::default() }
}

/// Like [`small`], for a peer that minds windows from the first byte on.
fn strict() -> Config {
    Config { flow_control: FlowControl::Required, ..small() }
}

/// All increments that are due, by stream; 0 for the session. What is due when a ping is read may come behind its
/// answer, but not behind that of the next.
async fn increments(peer: &mut Peer) -> HashMap<u32, u32> {
    peer.send(Frame::Ping(1)).await;
    let mut got = HashMap::new();
    loop {
        match peer.any().await.unwrap() {
            Frame::WindowUpdate { id, delta } => {
                *got.entry(id.map_or(0, StreamId::get)).or_default() += delta;
            }
            Frame::Ping(1) => peer.send(Frame::Ping(3)).await,
            Frame::Ping(3) => return got,
            Frame::Settings(_) => {}
            frame => panic!("{frame:?}"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_windows_are_announced_first() {
    let (mut peer, _session, _driven) = start(&Config::default());
    assert_eq!(
        peer.any().await,
        Some(Frame::Settings(vec![
            Setting { id: Setting::MAX_CONCURRENT_STREAMS, value: 512 },
            Setting { id: Setting::INITIAL_WINDOW_SIZE, value: 1 << 20 },
        ]))
    );
    assert_eq!(peer.any().await, Some(Frame::WindowUpdate { id: None, delta: (8 << 20) - (64 << 10) }));
}

/// A client that knows no windows is held back by the connection, and loses nothing by it.
#[tokio::test(start_paused = true)]
async fn a_slow_owner_holds_the_peer_back() {
    let (mut peer, mut session, _driven) = start(&small());
    let mut stream = peer.accepted(&mut session, 1).await;
    let data = pattern(1 << 20);
    let sent = data.clone();
    let mut sending = tokio::spawn(async move {
        for part in sent.chunks(20_000) {
            peer.data(1, Bytes::copy_from_slice(part)).await;
        }
        peer.fin(1).await;
        peer
    });
    assert!(timeout(Duration::from_millis(50), &mut sending).await.is_err(), "1 MiB went into 64 KiB");
    let mut got = Vec::new();
    while let Some(bytes) = soon(stream.recv.recv()).await.unwrap() {
        assert!(bytes.len() <= 64 << 10);
        got.extend_from_slice(&bytes);
    }
    assert!(got == data);
    sending.await.unwrap();
}

/// A full stream holds up nothing but its own data.
#[tokio::test(start_paused = true)]
async fn other_streams_go_on_beside_a_full_one() {
    let (mut peer, mut session, _driven) = start(&small());
    let full = peer.accepted(&mut session, 1).await;
    let mut other = peer.accepted(&mut session, 3).await;
    peer.data(1, pattern(64 << 10)).await;
    for _ in 0..100 {
        peer.data(3, pattern(10_000)).await;
        let mut left = 10_000;
        while left > 0 {
            left -= soon(other.recv.recv()).await.unwrap().unwrap().len();
        }
    }
    // Its next byte does not fit, and what is behind it has to wait, until its owner lets go of it.
    peer.data(1, "x").await;
    peer.data(3, "behind").await;
    assert!(timeout(Duration::from_millis(50), other.recv.recv()).await.is_err());
    drop(full);
    assert_eq!(soon(other.recv.recv()).await, Ok(Some(Bytes::from_static(b"behind"))));
}

/// Many streams that each hold less than their bound are held to the session's.
#[tokio::test(start_paused = true)]
async fn the_session_has_a_bound_of_its_own() {
    let (mut peer, mut session, _driven) = start(&small());
    let mut streams = Vec::new();
    for n in 0..5 {
        streams.push(peer.accepted(&mut session, 2 * n + 1).await);
    }
    let mut sending = tokio::spawn(async move {
        for n in 0..5 {
            peer.data(2 * n + 1, pattern(60 << 10)).await;
        }
        peer.send(Frame::Ping(1)).await;
        peer.next().await
    });
    assert!(timeout(Duration::from_millis(50), &mut sending).await.is_err(), "300 KiB went into 256 KiB");
    soon(streams[2].recv.recv()).await.unwrap();
    assert_eq!(soon(sending).await.unwrap(), Some(Frame::Ping(1)));
}

#[tokio::test(start_paused = true)]
async fn windows_reopen_as_owners_read() {
    let (mut peer, mut session, _driven) = start(&strict());
    let mut stream = peer.accepted(&mut session, 1).await;
    increments(&mut peer).await;
    let mut granted: HashMap<u32, u32> = HashMap::new();
    for _ in 0..20 {
        // Within the window, as each half of it is granted again.
        peer.data(1, pattern(32 << 10)).await;
        let mut left = 32 << 10;
        while left > 0 {
            left -= soon(stream.recv.recv()).await.unwrap().unwrap().len();
        }
        for (stream, delta) in increments(&mut peer).await {
            *granted.entry(stream).or_default() += delta;
        }
    }
    assert_eq!(granted, HashMap::from([(1, 640 << 10), (0, 640 << 10)]));

    // What comes for a stream that is gone counts for the session too: both sides would disagree for ever.
    drop(stream);
    assert_eq!(peer.next().await, Some(Frame::RstStream { id: id(1), status: ResetStatus::Cancel }));
    for _ in 0..4 {
        peer.data(1, pattern(32 << 10)).await;
    }
    assert_eq!(increments(&mut peer).await, HashMap::from([(0, 128 << 10)]));
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_minds_no_windows_hears_no_more_of_them() {
    let (mut peer, mut session, _driven) = start(&small());
    let mut stream = peer.accepted(&mut session, 1).await;
    increments(&mut peer).await;
    // It runs into the bound before anybody reads: the probe says so.
    peer.data(1, pattern((64 << 10) + 1)).await;
    assert_eq!(peer.any().await, Some(Frame::Settings(vec![])));
    let mut left = (64 << 10) + 1;
    while left > 0 {
        left -= soon(stream.recv.recv()).await.unwrap().unwrap().len();
    }
    assert_eq!(increments(&mut peer).await, HashMap::new());
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_minds_windows_may_not_exceed_them() {
    let (mut peer, mut session, driven) = start(&small());
    let mut stream = peer.accepted(&mut session, 1).await;
    peer.window(Some(1), 1).await;
    peer.data(1, pattern(64 << 10)).await;
    peer.data(1, "x").await;
    let status = ResetStatus::FlowControlError;
    assert_eq!(peer.next().await, Some(Frame::RstStream { id: id(1), status }));
    let mut got = 0;
    let error = loop {
        match soon(stream.recv.recv()).await {
            Ok(bytes) => got += bytes.unwrap().len(),
            Err(error) => break error,
        }
    };
    assert_eq!((got, error), (64 << 10, StreamError::Violated(status)));

    // The session's window counts also what is thrown away, until enough of it is told to the peer.
    let mut streams = Vec::new();
    for n in 1..6 {
        streams.push(peer.accepted(&mut session, 2 * n + 1).await);
    }
    let mut bytes = bytes::BytesMut::new();
    for n in 1..6 {
        Frame::Data { id: id(2 * n + 1), fin: false, bytes: pattern(64 << 10).into() }.write_to(&mut bytes);
    }
    let _ = soon(peer.pipe.write_all(&bytes)).await;
    while peer.next().await.is_some() {}
    assert!(matches!(end(driven).await, Err(SessionError::WindowExceeded)));
}

#[tokio::test(start_paused = true)]
async fn the_peers_windows_are_kept() {
    let (mut peer, mut session, _driven) = start(&small());
    let mut stream = peer.accepted(&mut session, 1).await;
    let size = |value| Setting { id: Setting::INITIAL_WINDOW_SIZE, value };
    // Only the first of the same id counts.
    peer.send(Frame::Settings(vec![size(10), size(20)])).await;
    peer.send(Frame::Ping(1)).await;
    assert_eq!(peer.next().await, Some(Frame::Ping(1)));
    stream.send.send(pattern(100 << 10).into()).await.unwrap();
    let chunk = async |peer: &mut Peer, length: usize| {
        let Some(Frame::Data { bytes, fin, .. }) = peer.next().await else { panic!("no data") };
        assert_eq!((bytes.len(), fin), (length, false));
        peer.send(Frame::Ping(1)).await;
        assert_eq!(peer.next().await, Some(Frame::Ping(1)), "more than the window");
    };
    chunk(&mut peer, 10).await;
    peer.window(Some(1), 5).await;
    chunk(&mut peer, 5).await;
    // Smaller by ten: five more are needed before anything may come.
    peer.send(Frame::Settings(vec![size(0)])).await;
    peer.window(Some(1), 10).await;
    peer.send(Frame::Ping(3)).await;
    assert_eq!(peer.next().await, Some(Frame::Ping(3)));
    peer.window(Some(1), 1).await;
    chunk(&mut peer, 1).await;
}

/// The session's window is everybody's.
#[tokio::test(start_paused = true)]
async fn the_peers_session_window_is_kept() {
    let (mut peer, mut session, _driven) = start(&strict());
    let mut streams = [peer.accepted(&mut session, 1).await, peer.accepted(&mut session, 3).await];
    let mut total = 0;
    for stream in &mut streams {
        stream.send.send(pattern(64 << 10).into()).await.unwrap();
    }
    let mut read_all = async |peer: &mut Peer, expected: usize| {
        while total < expected {
            let Some(Frame::Data { bytes, .. }) = peer.next().await else { panic!("no data") };
            total += bytes.len();
        }
        peer.send(Frame::Ping(1)).await;
        assert_eq!(peer.next().await, Some(Frame::Ping(1)), "more than the window");
    };
    read_all(&mut peer, 64 << 10).await;
    peer.window(None, 100).await;
    read_all(&mut peer, (64 << 10) + 100).await;
    peer.window(None, 1 << 20).await;
    read_all(&mut peer, 128 << 10).await;
}

/// What kubectl is: it reads, and says nothing.
#[tokio::test(start_paused = true)]
async fn a_peer_that_never_speaks_of_windows_gets_everything() {
    let (mut peer, mut session, _driven) = start(&Config::default());
    let mut stream = peer.accepted(&mut session, 1).await;
    let data = pattern(3 << 20);
    let sent = data.clone();
    let sending = tokio::spawn(async move {
        for part in sent.chunks(30_000) {
            stream.send.send(Bytes::copy_from_slice(part)).await.unwrap();
        }
        stream.send.finish().unwrap();
    });
    assert!(peer.read_to_end(1).await == data);
    sending.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_does_not_read_holds_the_owner_back() {
    let (mut peer, mut session, _driven) = start(&Config::default());
    let mut stream = peer.accepted(&mut session, 1).await;
    let mut sent = 0;
    while timeout(Duration::from_millis(50), stream.send.send(pattern(10_000).into())).await.is_ok() {
        sent += 10_000;
        assert!(sent < 400_000, "unbounded");
    }
    // It goes on where it stopped.
    let Some(Frame::Data { bytes, .. }) = peer.next().await else { panic!("no data") };
    assert!(!bytes.is_empty());
    drop(stream.recv);
    let reading = tokio::spawn(async move { peer.read_to_end(1).await.len() + bytes.len() });
    soon(stream.send.send(pattern(10_000).into())).await.unwrap();
    stream.send.finish().unwrap();
    assert_eq!(soon(reading).await.unwrap(), sent + 10_000);
}

/// Fifty streams at once, both ways, over a pipe of 16 KiB.
#[tokio::test(start_paused = true)]
async fn many_streams_echo_at_once() {
    let (mut peer, mut session, _driven) = start(&small());
    tokio::spawn(async move {
        while let Some(incoming) = session.accept().await {
            tokio::spawn(async move {
                let mut stream = incoming.reply(&crate::Headers::new()).unwrap();
                tokio::io::copy(&mut stream.recv, &mut stream.send).await.unwrap();
                stream.send.finish().unwrap();
            });
        }
    });
    for n in 0..50 {
        peer.open(2 * n + 1).await;
        peer.reply(2 * n + 1).await;
    }
    let mut got: HashMap<u32, Vec<u8>> = HashMap::new();
    let mut ended = 0;
    for round in 0..20 {
        for n in 0..50u32 {
            peer.data(2 * n + 1, vec![n as u8; 1000]).await;
            if round == 19 {
                peer.fin(2 * n + 1).await;
            }
        }
        while got.values().map(Vec::len).sum::<usize>() < (round + 1) * 50_000 || (round == 19 && ended < 50)
        {
            let Some(Frame::Data { id, fin, bytes }) = peer.next().await else { panic!("no data") };
            got.entry(id.get()).or_default().extend_from_slice(&bytes);
            ended += usize::from(fin);
        }
    }
    for n in 0..50u32 {
        assert!(got[&(2 * n + 1)] == vec![n as u8; 20_000], "stream {n}");
    }
}

/// While reading is paused the end of the peer cannot be read; what is written all the same finds out.
#[tokio::test(start_paused = true)]
async fn a_peer_that_vanishes_behind_unread_data_is_noticed() {
    let (mut peer, mut session, driven) = start(&small());
    let mut stream = peer.accepted(&mut session, 1).await;
    peer.data(1, pattern(65 << 10)).await;
    // A session that stands still is not ended by that.
    for _ in 0..5 {
        assert_eq!(peer.any().await, Some(Frame::Settings(vec![])));
    }
    drop(peer);
    assert!(matches!(end(driven).await, Err(SessionError::Io(_))));
    while let Ok(bytes) = stream.recv.recv().await {
        assert!(bytes.is_some());
    }
}
