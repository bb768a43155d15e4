//! The end of a stream that wants the bytes: a process's stdin in the guest, its output on the host.

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};

use super::{
    ACK_EVERY, FrameError, FrameReader, Kind, StreamError, Turn,
    bulk::{BulkFile, NO_FILE, PIECE, Place},
    write_frame,
};

/// What a receiver remembers from one connection to the next.
#[derive(Debug, Default)]
pub struct Receiver {
    received: u64,
    bulk: Option<BulkFile>,
}

impl Receiver {
    /// A receiver whose sender may put bytes into a file.
    pub fn with(bulk: BulkFile) -> Self {
        Self { received: 0, bulk: Some(bulk) }
    }

    /// How many bytes were handed to the sink so far: where the next connection goes on.
    pub fn received(&self) -> u64 {
        self.received
    }

    /// Hands bytes to the sink until the stream's end or until the connection breaks. At the end the sink is shut
    /// down before the sender learns of it. A dropped call loses nothing: bytes count when the sink has them.
    ///
    /// # Errors
    /// The peer breaks the protocol, or the sink fails.
    pub async fn run(
        &mut self,
        from_peer: &mut FrameReader<impl AsyncRead + Unpin>,
        to_peer: &mut (impl AsyncWrite + Unpin),
        sink: &mut (impl AsyncWrite + Unpin),
    ) -> Result<Turn, StreamError> {
        let mut acknowledged = self.received;
        loop {
            let answer = match from_peer.next().await {
                Ok((Kind::Data, bytes)) => {
                    self.hand_on(bytes, sink).await.map_err(StreamError::Local)?;
                    if self.received - acknowledged < ACK_EVERY {
                        continue;
                    }
                    acknowledged = self.received;
                    write_frame(to_peer, Kind::Ack, &self.received.to_be_bytes()).await
                }
                Ok((Kind::Placed, place)) => {
                    let place = Place::parse(place)?;
                    self.fetch(place, sink).await?;
                    // The sender needs the room.
                    acknowledged = self.received;
                    write_frame(to_peer, Kind::Ack, &self.received.to_be_bytes()).await
                }
                Ok((Kind::End, _)) => {
                    sink.shutdown().await.map_err(StreamError::Local)?;
                    // The stream is whole, whether or not the peer hears of it.
                    let _ = write_frame(to_peer, Kind::End, &[]).await;
                    return Ok(Turn::Finished);
                }
                Ok(_) => return Err(StreamError::Protocol("a receiver gets DATA, PLACED and END only")),
                Err(FrameError::Connection(_)) => return Ok(Turn::Disconnected),
                Err(FrameError::Malformed(what)) => return Err(StreamError::Protocol(what)),
            };
            if answer.is_err() {
                return Ok(Turn::Disconnected);
            }
        }
    }

    async fn fetch(&mut self, place: Place, sink: &mut (impl AsyncWrite + Unpin)) -> Result<(), StreamError> {
        let bulk = self.bulk.clone().ok_or(NO_FILE)?;
        let mut bytes = vec![0; PIECE.min(place.len())];
        for piece in place.pieces(PIECE) {
            let bytes = &mut bytes[..piece.len()];
            bulk.read(&piece, bytes)?;
            self.hand_on(bytes, sink).await.map_err(StreamError::Local)?;
        }
        Ok(())
    }

    async fn hand_on(
        &mut self,
        mut bytes: &[u8],
        sink: &mut (impl AsyncWrite + Unpin),
    ) -> std::io::Result<()> {
        while !bytes.is_empty() {
            let count = sink.write(bytes).await?;
            if count == 0 {
                return Err(std::io::ErrorKind::WriteZero.into());
            }
            self.received += count as u64;
            bytes = &bytes[count..];
        }
        sink.flush().await
    }
}
