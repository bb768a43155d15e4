//! The writing loop: from the state to the connection.

use std::{io, sync::Arc};

use bytes::BytesMut;
use tokio::io::{AsyncWrite, AsyncWriteExt};

use super::{outbound::Filled, state::Shared};
use crate::{
    error::SessionError,
    frame::GoAwayStatus,
    headers::{CompressionError, Compressor},
};

#[derive(Debug)]
pub(super) struct Writer<W> {
    connection: W,
    shared: Arc<Shared>,
    compressor: Compressor,
    /// Frames, of which the first may be written in part. It outlives [`Self::run`], so that a farewell follows at a
    /// frame's end.
    out: BytesMut,
}

impl<W: AsyncWrite + Unpin> Writer<W> {
    pub(super) fn new(connection: W, shared: Arc<Shared>) -> Result<Self, CompressionError> {
        Ok(Self { connection, shared, compressor: Compressor::new()?, out: BytesMut::new() })
    }

    /// Writes until nothing will be left to write. Cancel-safe.
    pub(super) async fn run(&mut self) -> Result<(), SessionError> {
        loop {
            let filled = self.shared.lock().fill(&mut self.out, &mut self.compressor)?;
            match filled {
                Filled::Finished => return Ok(()),
                Filled::Nothing => self.shared.signals.write.notified().await,
                Filled::Frames { data } => {
                    self.flush().await?;
                    if data {
                        self.shared.lock().touch();
                    }
                }
            }
        }
    }

    /// Writes the session's last frame, and closes this direction of the connection.
    pub(super) async fn go_away(&mut self, status: GoAwayStatus) -> io::Result<()> {
        self.shared.lock().go_away(status).write_to(&mut self.out);
        self.flush().await?;
        self.connection.shutdown().await
    }

    async fn flush(&mut self) -> io::Result<()> {
        self.connection.write_all_buf(&mut self.out).await?;
        self.connection.flush().await
    }
}
