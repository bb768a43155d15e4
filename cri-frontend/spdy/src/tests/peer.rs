//! The other end of a session.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex},
    task::JoinHandle,
    time::timeout,
};

use crate::{
    Config, Ended, Headers, Session, SessionError, Stream,
    frame::{Frame, Parser, StreamId},
    headers::{Compressor, Decompressor},
};

/// Bytes on their way in one direction.
pub(super) const PIPE: usize = 16 << 10;
/// After this time something hangs that should not.
const PATIENCE: Duration = Duration::from_secs(20);

pub(super) type Driven = JoinHandle<Result<Ended, SessionError>>;

pub(super) struct Peer {
    pub(super) pipe: DuplexStream,
    buffer: BytesMut,
    parser: Parser,
    compressor: Compressor,
    decompressor: Decompressor,
}

pub(super) fn id(value: u32) -> StreamId {
    StreamId::new(value).unwrap()
}

/// A session with a peer, and its driver in a task.
pub(super) fn start(config: &Config) -> (Peer, Session, Driven) {
    let (ours, theirs) = duplex(PIPE);
    let (session, driver) = Session::new(ours, config);
    (Peer::new(theirs), session, tokio::spawn(driver.run()))
}

/// Waits for what must come.
pub(super) async fn soon<T>(future: impl Future<Output = T>) -> T {
    timeout(PATIENCE, future).await.expect("nothing came")
}

/// How the session ended.
pub(super) async fn end(driven: Driven) -> Result<Ended, SessionError> {
    soon(driven).await.unwrap()
}

impl Peer {
    fn new(pipe: DuplexStream) -> Self {
        Self {
            pipe,
            buffer: BytesMut::new(),
            parser: Parser::new(1 << 20),
            compressor: Compressor::new().unwrap(),
            decompressor: Decompressor::new(1 << 20),
        }
    }

    pub(super) async fn bytes(&mut self, bytes: &[u8]) {
        soon(self.pipe.write_all(bytes)).await.unwrap();
    }

    pub(super) async fn send(&mut self, frame: Frame) {
        let mut bytes = BytesMut::new();
        frame.write_to(&mut bytes);
        self.bytes(&bytes).await;
    }

    pub(super) fn block(&mut self, headers: &Headers) -> Bytes {
        self.compressor.compress(&headers.to_block()).unwrap().into()
    }

    /// SYN_STREAM with one header, `n`, that has the stream's id.
    pub(super) async fn open(&mut self, stream: u32) {
        let headers = [("n", stream.to_string().as_str())].into_iter().collect();
        let block = self.block(&headers);
        self.send(syn_stream(stream, block)).await;
    }

    pub(super) async fn data(&mut self, stream: u32, bytes: impl Into<Bytes>) {
        self.send(Frame::Data { id: id(stream), fin: false, bytes: bytes.into() }).await;
    }

    pub(super) async fn fin(&mut self, stream: u32) {
        self.send(Frame::Data { id: id(stream), fin: true, bytes: Bytes::new() }).await;
    }

    pub(super) async fn window(&mut self, stream: Option<u32>, delta: u32) {
        self.send(Frame::WindowUpdate { id: stream.map(id), delta }).await;
    }

    /// The next frame of any kind; none at the end of the connection.
    pub(super) async fn any(&mut self) -> Option<Frame> {
        loop {
            if let Some(frame) = self.parser.next(&mut self.buffer).unwrap() {
                return Some(frame);
            }
            if soon(self.pipe.read_buf(&mut self.buffer)).await.unwrap() == 0 {
                assert!(self.buffer.is_empty() && self.parser.at_boundary(), "cut within a frame");
                return None;
            }
        }
    }

    /// The next frame that is not about windows.
    pub(super) async fn next(&mut self) -> Option<Frame> {
        loop {
            let frame = self.any().await;
            if !matches!(frame, Some(Frame::Settings(_) | Frame::WindowUpdate { .. })) {
                return frame;
            }
        }
    }

    /// The headers of the SYN_REPLY that comes next.
    pub(super) async fn reply(&mut self, stream: u32) -> Headers {
        let Some(Frame::SynReply { id, block, .. }) = self.next().await else { panic!("no reply") };
        assert_eq!(id.get(), stream);
        Headers::parse(&self.decompressor.decompress(&block).unwrap(), 100).unwrap()
    }

    /// What comes on one stream up to its FIN, if nothing else comes.
    pub(super) async fn read_to_end(&mut self, stream: u32) -> Vec<u8> {
        let mut got = Vec::new();
        loop {
            let Some(Frame::Data { id, fin, bytes }) = self.next().await else { panic!("no data") };
            assert_eq!(id.get(), stream);
            got.extend_from_slice(&bytes);
            if fin {
                return got;
            }
        }
    }

    /// Opens a stream, has it accepted and reads the reply.
    pub(super) async fn accepted(&mut self, session: &mut Session, stream: u32) -> Stream {
        self.open(stream).await;
        let incoming = soon(session.accept()).await.unwrap();
        assert_eq!(incoming.headers().get("n"), Some(stream.to_string().as_str()));
        let accepted = incoming.reply(&Headers::new()).unwrap();
        self.reply(stream).await;
        accepted
    }
}

pub(super) fn syn_stream(stream: u32, block: Bytes) -> Frame {
    Frame::SynStream {
        id: id(stream),
        associated: None,
        priority: 0,
        fin: false,
        unidirectional: false,
        block,
    }
}

/// Bytes of which no part looks like another.
pub(super) fn pattern(length: usize) -> Vec<u8> {
    (0..length as u64).map(|n| (n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8).collect()
}
