//! The reading loop: from the connection to the state, and no faster than the streams' owners take it.

use std::{sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    time::timeout,
};

use super::state::{Opening, Shared, State};
use crate::{
    config::Config,
    error::{Ended, SessionError},
    frame::{Frame, Parser, StreamId},
    headers::{BlockError, CompressionError, Decompressor, Headers},
};

/// Bytes that one read may bring.
const READ: usize = 64 << 10;
/// How long reading is paused before the peer is probed, and between two probes: the first after it has gone is answered
/// by a reset, and the next finds that.
const PROBE: Duration = Duration::from_millis(500);

#[derive(Debug)]
pub(super) struct Reader<R> {
    connection: R,
    shared: Arc<Shared>,
    buffer: BytesMut,
    parser: Parser,
    decompressor: Decompressor,
    max_headers: usize,
}

impl<R: AsyncRead + Unpin> Reader<R> {
    pub(super) fn new(connection: R, config: &Config, shared: Arc<Shared>) -> Self {
        Self {
            connection,
            shared,
            buffer: BytesMut::new(),
            // Beside its block the largest frame, SYN_STREAM, has ten bytes. SETTINGS are smaller by far.
            parser: Parser::new(config.max_header_block + 10),
            decompressor: Decompressor::new(config.max_header_block),
            max_headers: config.max_headers,
        }
    }

    /// Reads until the connection or the session ends.
    pub(super) async fn run(&mut self) -> Result<Ended, SessionError> {
        loop {
            while let Some(frame) = self.parser.next(&mut self.buffer)? {
                self.until(|state| state.takes_frames()).await;
                self.handle(frame).await?;
            }
            self.buffer.reserve(READ);
            if self.connection.read_buf(&mut self.buffer).await? == 0 {
                let whole = self.buffer.is_empty() && self.parser.at_boundary();
                return if whole { Ok(Ended::ByPeer) } else { Err(SessionError::Truncated) };
            }
        }
    }

    /// What is left to read after the session.
    pub(super) fn into_inner(self) -> R {
        self.connection
    }

    async fn handle(&mut self, frame: Frame) -> Result<(), SessionError> {
        match frame {
            Frame::Data { id, fin, bytes } => self.data(id, fin, bytes).await?,
            Frame::SynStream { id, associated, priority, fin, unidirectional, block } => {
                let opening = self.headers(&block)?.map(|headers| Opening {
                    id,
                    headers,
                    associated,
                    priority,
                    fin,
                    unidirectional,
                });
                self.shared.lock().on_open(id, opening)?;
            }
            Frame::SynReply { id, block, .. } => {
                // The block is part of the one zlib stream, whether it is of use or not.
                let _ = self.headers(&block)?;
                self.shared.lock().on_reply(id);
            }
            Frame::Headers { id, fin, block } => {
                let headers = self.headers(&block)?;
                self.shared.lock().on_headers(id, fin, &headers);
            }
            Frame::RstStream { id, status } => self.shared.lock().on_reset(id, status),
            Frame::Settings(settings) => self.shared.lock().on_settings(&settings)?,
            Frame::Ping(id) => self.shared.lock().on_ping(id),
            Frame::GoAway { .. } => self.shared.lock().on_go_away(),
            Frame::WindowUpdate { id, delta } => self.shared.lock().on_window_update(id, delta)?,
        }
        Ok(())
    }

    async fn data(&mut self, id: StreamId, fin: bool, mut bytes: Bytes) -> Result<(), SessionError> {
        let kept = self.shared.lock().on_data(id, bytes.len())?;
        if kept {
            self.until(|state| state.keep(id, &mut bytes)).await;
            if fin {
                self.shared.lock().on_fin(id);
            }
        }
        Ok(())
    }

    /// Decompresses a header block. An error within it costs its stream only; one of the compression the session.
    fn headers(&mut self, block: &[u8]) -> Result<Result<Headers, BlockError>, CompressionError> {
        let block = self.decompressor.decompress(block)?;
        Ok(Headers::parse(&block, self.max_headers))
    }

    /// Pauses reading until `ready`. While it is paused the connection's own flow control holds the peer back.
    async fn until(&mut self, mut ready: impl FnMut(&mut State) -> bool) {
        loop {
            {
                let mut state = self.shared.lock();
                state.reader_waits = false;
                if ready(&mut state) {
                    return;
                }
                state.reader_waits = true;
            }
            if timeout(PROBE, self.shared.signals.read.notified()).await.is_err() {
                self.shared.lock().probe();
            }
        }
    }
}
