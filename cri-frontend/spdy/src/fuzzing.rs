//! What the fuzz target in `fuzz/` calls with bytes as a peer might send them. The unit test here calls it with each
//! file of the target's corpus.

use std::time::Duration;

use bytes::BytesMut;
use tokio::{io::join, runtime, task::JoinSet, time::timeout};

use crate::{
    Config, Headers, Incoming, ResetStatus, Session, StreamError,
    frame::{Frame, FrameError, Parser},
    headers::Decompressor,
};

/// Small enough for a fuzzer to come across each.
const CONFIG: Config = Config {
    max_streams: 8,
    stream_window: 64 << 10,
    session_window: 128 << 10,
    max_header_block: 4096,
    max_headers: 16,
    flow_control: crate::FlowControl::Detect,
    idle_timeout: None,
};

/// Feeds `input` to the parser and to a whole session.
///
/// # Panics
/// If anything is wrong with what they make of it.
pub fn peer(input: &[u8]) {
    let read = parse(input, input.len());
    let piece = input.first().map_or(1, |byte| usize::from(*byte) % 32 + 1);
    assert!(parse(input, piece) == read, "reads change what is read");
    let (frames, _) = read;
    let mut wire = BytesMut::new();
    frames.iter().for_each(|frame| frame.write_to(&mut wire));
    headers(&frames);
    assert!(parse(&wire, wire.len()) == (frames, None), "a frame is not written as it was read");
    session(input);
}

/// All frames of `input`, of which `piece` bytes are read at once, and the error behind them. Pieces of a data frame
/// are put together.
fn parse(input: &[u8], piece: usize) -> (Vec<Frame>, Option<FrameError>) {
    // Compression makes the worst block a little larger.
    let mut parser = Parser::new(2 * CONFIG.max_header_block);
    let mut buffer = BytesMut::new();
    let mut frames = Vec::new();
    let mut within = false;
    for piece in input.chunks(piece.max(1)) {
        buffer.extend_from_slice(piece);
        loop {
            let frame = match parser.next(&mut buffer) {
                Ok(Some(frame)) => frame,
                Ok(None) => break,
                Err(error) => return (frames, Some(error)),
            };
            match (frames.last_mut(), frame) {
                (Some(Frame::Data { fin, bytes, .. }), Frame::Data { fin: end, bytes: more, .. })
                    if within =>
                {
                    *bytes = [&bytes[..], &more[..]].concat().into();
                    *fin = end;
                }
                (_, frame) => frames.push(frame),
            }
            within = !parser.at_boundary();
        }
    }
    (frames, None)
}

/// Reads the header blocks as a session would.
fn headers(frames: &[Frame]) {
    let mut decompressor = Decompressor::new(CONFIG.max_header_block);
    for frame in frames {
        let (Frame::SynStream { block, .. } | Frame::SynReply { block, .. } | Frame::Headers { block, .. }) =
            frame
        else {
            continue;
        };
        let Ok(block) = decompressor.decompress(block) else { return };
        assert!(block.len() <= CONFIG.max_header_block, "a block of {} bytes", block.len());
        if let Ok(headers) = Headers::parse(&block, CONFIG.max_headers) {
            let count = headers.iter().map(|(_, values)| values.len()).sum::<usize>();
            assert!(count <= CONFIG.max_headers, "{count} headers");
            assert!(headers.to_block() == block, "a block is not written as it was read");
        }
    }
}

/// Runs a session to its end, with owners who do one thing and another. What it writes must be SPDY, and nobody may
/// wait for ever.
fn session(input: &[u8]) {
    let Ok(runtime) = runtime::Builder::new_current_thread().enable_time().build() else { return };
    let mut written = Vec::new();
    let ended = runtime.block_on(async {
        let (mut session, driver) = Session::new(join(input, &mut written), &CONFIG);
        let owners = tokio::spawn(async move {
            let mut owners = JoinSet::new();
            while let Some(incoming) = session.accept().await {
                owners.spawn(own(incoming));
            }
            while owners.join_next().await.is_some() {}
        });
        timeout(Duration::from_secs(10), async { (driver.run().await, owners.await) }).await
    });
    assert!(matches!(ended, Ok((_, Ok(())))), "an owner waits for ever, or panicked: {ended:?}");
    assert!(parse(&written, written.len()).1.is_none(), "what was written is no SPDY");
}

async fn own(incoming: Incoming) -> Result<(), StreamError> {
    let choice = incoming.id().get() / 2 % 6;
    if choice == 0 {
        incoming.refuse(ResetStatus::RefusedStream);
        return Ok(());
    }
    let headers = incoming.headers().clone();
    let mut stream = incoming.reply(&headers)?;
    if choice == 1 {
        drop(stream.recv);
        return stream.send.finish();
    }
    while let Some(bytes) = stream.recv.recv().await? {
        if choice == 2 {
            break;
        }
        stream.send.send(bytes).await?;
    }
    if choice == 3 {
        stream.send.reset(ResetStatus::InternalError);
        return Ok(());
    }
    stream.send.finish()
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    #[test]
    fn the_corpus_of_the_fuzz_target() {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/peer");
        let seeds: Vec<_> = fs::read_dir(corpus).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert!(!seeds.is_empty());
        for seed in seeds {
            super::peer(&fs::read(&seed).unwrap_or_else(|error| panic!("{}: {error}", seed.display())));
        }
    }
}
