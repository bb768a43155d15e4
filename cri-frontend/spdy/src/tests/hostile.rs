//! Peers that mean harm, or err.

use bytes::{BufMut, Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::peer::{Peer, end, id, pattern, soon, start, syn_stream};
use crate::{
    Config, Headers, ResetStatus, SessionError, StreamError,
    frame::{Frame, FrameError, GoAwayStatus, Setting},
    headers::{CompressionError, Compressor},
};

fn reset(stream: u32, status: ResetStatus) -> Option<Frame> {
    Some(Frame::RstStream { id: id(stream), status })
}

fn wire(frames: &[Frame]) -> Vec<u8> {
    let mut bytes = BytesMut::new();
    frames.iter().for_each(|frame| frame.write_to(&mut bytes));
    bytes.to_vec()
}

/// A SYN_STREAM with the first block of a compression.
fn open(stream: u32, block: &[u8]) -> Frame {
    syn_stream(stream, Compressor::new().unwrap().compress(block).unwrap().into())
}

/// Each of these ends the session, with a GOAWAY that blames the peer.
#[tokio::test(start_paused = true)]
async fn what_cannot_go_on_ends_the_session() {
    let none = Headers::new().to_block();
    type Expected = fn(&SessionError) -> bool;
    let table: Vec<(&str, Vec<u8>, Expected)> = vec![
        ("HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(), |error| {
            matches!(error, SessionError::Truncated)
        }),
        ("TLS", vec![0x96, 3, 1, 0, 0, 0, 0, 0], |error| {
            matches!(error, SessionError::Frame(FrameError::Version(0x1603)))
        }),
        ("a block beyond the limit", vec![0x80, 3, 0, 1, 0, 255, 255, 255], |error| {
            matches!(error, SessionError::Frame(FrameError::TooLarge { .. }))
        }),
        ("data on stream 0", vec![0, 0, 0, 0, 0, 0, 0, 0], |error| {
            matches!(error, SessionError::Frame(FrameError::StreamZero))
        }),
        ("an id of the server's", wire(&[open(2, &none)]), |error| {
            matches!(error, SessionError::StreamParity(_))
        }),
        (
            "an id twice",
            {
                let mut compressor = Compressor::new().unwrap();
                let mut open = || syn_stream(7, compressor.compress(&none).unwrap().into());
                wire(&[open(), open()])
            },
            |error| matches!(error, SessionError::StreamOrder { last: 7, .. }),
        ),
        ("noise for headers", wire(&[syn_stream(1, Bytes::from_static(&[7; 100]))]), |error| {
            matches!(error, SessionError::Compression(CompressionError::Corrupt))
        }),
        ("a bomb", wire(&[open(1, &vec![0; 8 << 20])]), |error| {
            matches!(error, SessionError::Compression(CompressionError::TooLarge { .. }))
        }),
        (
            "a window without end",
            wire(&vec![Frame::WindowUpdate { id: None, delta: 0x7fff_ffff }; 2]),
            |error| matches!(error, SessionError::WindowInvalid),
        ),
        ("no window", wire(&[Frame::WindowUpdate { id: None, delta: 0 }]), |error| {
            matches!(error, SessionError::WindowInvalid)
        }),
        (
            "an impossible initial window",
            wire(&[Frame::Settings(vec![Setting { id: Setting::INITIAL_WINDOW_SIZE, value: 1 << 31 }])]),
            |error| matches!(error, SessionError::WindowInvalid),
        ),
    ];
    for (what, bytes, expected) in table {
        let (mut peer, session, driven) = start(&Config::default());
        // The session may end before all of it is taken.
        let _ = soon(peer.pipe.write_all(&bytes)).await;
        soon(peer.pipe.shutdown()).await.unwrap();
        let mut last = None;
        while let Some(frame) = peer.next().await {
            last = Some(frame);
        }
        let error = end(driven).await.unwrap_err();
        assert!(expected(&error), "{what}: {error:?}");
        if !matches!(error, SessionError::Truncated) {
            let Some(Frame::GoAway { status, .. }) = last else { panic!("{what}: {last:?}") };
            assert_eq!(status, GoAwayStatus::ProtocolError, "{what}");
        }
        drop(session);
    }
}

/// Each of these costs a stream, if anything. The session answers a ping afterwards.
#[tokio::test(start_paused = true)]
async fn what_is_wrong_within_a_stream_resets_it() {
    let (mut peer, mut session, _driven) = start(&Config::default());
    let mut open = peer.accepted(&mut session, 101).await;
    let mut closed = peer.accepted(&mut session, 103).await;
    peer.fin(103).await;
    assert_eq!(soon(closed.recv.recv()).await, Ok(None));
    let block = peer.block(&Headers::new());
    let status = ResetStatus::InvalidStream;
    let data = |stream| Frame::Data { id: id(stream), fin: false, bytes: Bytes::from_static(b"?") };
    let table = [
        ("data on a stream that never was", data(105), reset(105, status)),
        ("data on a stream of ours", data(2), reset(2, status)),
        ("data on a stream that was before", data(99), None),
        ("data behind the end", data(103), reset(103, ResetStatus::StreamAlreadyClosed)),
        ("data behind the reset", data(103), None),
        ("a reply to nothing", Frame::SynReply { id: id(2), fin: false, block }, reset(2, status)),
        ("a reset of nothing", Frame::RstStream { id: id(105), status }, None),
        ("a window of nothing", Frame::WindowUpdate { id: Some(id(105)), delta: 1 }, None),
        (
            "a window of no bytes",
            Frame::WindowUpdate { id: Some(id(101)), delta: 0 },
            reset(101, ResetStatus::ProtocolError),
        ),
        ("a setting of nothing", Frame::Settings(vec![Setting { id: 4711, value: 1 }; 100]), None),
    ];
    for (what, frame, answer) in table {
        peer.send(frame).await;
        if answer.is_some() {
            assert_eq!(peer.next().await, answer, "{what}");
        }
        peer.send(Frame::Ping(1)).await;
        assert_eq!(peer.next().await, Some(Frame::Ping(1)), "{what}");
    }
    assert_eq!(soon(open.recv.recv()).await, Err(StreamError::Violated(ResetStatus::ProtocolError)));

    let stream = peer.accepted(&mut session, 203).await;
    peer.window(Some(203), 0x7fff_ffff).await;
    assert_eq!(peer.next().await, reset(203, ResetStatus::FlowControlError));
    drop(stream);
}

/// A header block that is read but makes no sense costs its stream; the next one is read with what this one taught.
#[tokio::test(start_paused = true)]
async fn malformed_headers_cost_their_stream_only() {
    let (mut peer, mut session, _driven) = start(&Config::default());
    let mut compressor = Compressor::new().unwrap();
    let mut upper = Headers::new().to_block();
    upper[3] = 1;
    upper.put_slice(&[0, 0, 0, 1, b'A', 0, 0, 0, 0]);
    for (stream, block) in [(1, upper), (3, vec![0]), (5, vec![255; 4])] {
        let block = compressor.compress(&block).unwrap().into();
        peer.send(syn_stream(stream, block)).await;
        assert_eq!(peer.next().await, reset(stream, ResetStatus::ProtocolError));
    }
    let headers: Headers = [("a", "b")].into_iter().collect();
    let block = compressor.compress(&headers.to_block()).unwrap().into();
    peer.send(syn_stream(7, block)).await;
    let incoming = soon(session.accept()).await.unwrap();
    assert_eq!(incoming.headers(), &headers);
    let block = compressor.compress(&[0]).unwrap().into();
    peer.send(Frame::Headers { id: id(7), fin: false, block }).await;
    assert_eq!(peer.next().await, reset(7, ResetStatus::ProtocolError));
}

#[tokio::test(start_paused = true)]
async fn streams_count_until_their_owner_lets_go() {
    let (mut peer, mut session, _driven) = start(&Config { max_streams: 3, ..Config::default() });
    let mut held = Vec::new();
    for n in [1, 3, 5] {
        held.push(peer.accepted(&mut session, n).await);
        peer.send(Frame::RstStream { id: id(n), status: ResetStatus::Cancel }).await;
    }
    peer.open(7).await;
    assert_eq!(peer.next().await, reset(7, ResetStatus::RefusedStream));
    held.pop();
    held.push(peer.accepted(&mut session, 9).await);

    // One that nobody has seen yet is not counted once it is reset.
    held.pop();
    assert_eq!(peer.next().await, reset(9, ResetStatus::Cancel));
    for n in (11..2011).step_by(2) {
        peer.open(n).await;
        peer.send(Frame::RstStream { id: id(n), status: ResetStatus::Cancel }).await;
    }
    peer.open(2011).await;
    peer.send(Frame::Ping(1)).await;
    assert_eq!(peer.next().await, Some(Frame::Ping(1)));
    assert_eq!(soon(session.accept()).await.unwrap().id(), id(2011));
}

/// A peer that asks and does not read the answers is not read either.
#[tokio::test(start_paused = true)]
async fn answers_that_nobody_reads_do_not_pile_up() {
    let (peer, _session, _driven) = start(&Config::default());
    let Peer { pipe, .. } = peer;
    let (mut reader, mut writer) = tokio::io::split(pipe);
    let pings = wire(&vec![Frame::Ping(1); 1000]);
    let flooding = tokio::spawn(async move {
        let mut sent = 0;
        let stuck = std::time::Duration::from_millis(50);
        while let Ok(written) = tokio::time::timeout(stuck, writer.write(&pings[sent % pings.len()..])).await
        {
            sent += written.unwrap();
        }
        sent
    });
    // Two pipes, a read and 64 answers hold it.
    let sent = flooding.await.unwrap();
    assert!(sent < 300_000, "{sent} bytes of pings");
    // Every one is answered when the peer reads at last, be it one cut off at the end.
    let mut got = 0;
    let mut buffer = vec![0; 4096];
    while got < sent / 12 * 12 {
        got += soon(reader.read(&mut buffer)).await.unwrap();
    }
}

/// Frames of one byte take no more memory than their bytes.
#[tokio::test(start_paused = true)]
async fn tiny_frames_are_put_together() {
    let (mut peer, mut session, _driven) = start(&Config::default());
    let mut stream = peer.accepted(&mut session, 1).await;
    let data = pattern(5000);
    for byte in &data {
        peer.data(1, vec![*byte]).await;
    }
    peer.send(Frame::Ping(1)).await;
    assert_eq!(peer.next().await, Some(Frame::Ping(1)));
    assert_eq!(soon(stream.recv.recv()).await, Ok(Some(data.into())));
}
