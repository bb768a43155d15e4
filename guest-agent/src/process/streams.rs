//! One standard stream of a process and the connections that come and go on it. What a process writes waits in its
//! pipe while nobody is connected; whoever connects last takes the stream over.

use std::{io, sync::Arc};

use a3s_box_proto::stream::{
    self, FrameReader, Kind, Receiver, Sender, StreamError, Taken, Turn, write_frame,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::{Mutex, MutexGuard, watch},
};

use super::stdio::{Sink, Source};
use crate::stream::Bulk;

/// The right to use a stream: the next connection takes it from the one before.
#[derive(Debug)]
struct Seat<T> {
    generation: watch::Sender<u64>,
    state: Mutex<T>,
}

impl<T> Seat<T> {
    fn new(state: T) -> Self {
        Self { generation: watch::Sender::new(0), state: Mutex::new(state) }
    }

    /// Asks the present holder to leave and waits for that. None: somebody newer came meanwhile.
    async fn take(&self) -> Option<(MutexGuard<'_, T>, Replaced)> {
        self.generation.send_modify(|generation| *generation += 1);
        let mut replaced = Replaced(self.generation.subscribe());
        tokio::select! {
            biased;
            () = replaced.happens() => None,
            state = self.state.lock() => Some((state, replaced)),
        }
    }
}

/// Tells that somebody newer wants the stream.
struct Replaced(watch::Receiver<u64>);

impl Replaced {
    async fn happens(&mut self) {
        // The sender lives in the seat, which is borrowed as long as anybody waits here.
        let _ = self.0.changed().await;
    }
}

/// What a process writes.
#[derive(Debug)]
pub struct Output(Seat<(Sender, Source)>);

impl Output {
    /// A stream of which nothing has been read.
    pub fn new(source: Source) -> Self {
        Self(Seat::new((Sender::default(), source)))
    }

    /// Serves a connection that already has `offset` bytes of the stream; much at once goes through `bulk`.
    ///
    /// # Errors
    /// The peer breaks the protocol, or the stream cannot be read.
    pub async fn serve(
        &self,
        from_peer: &mut FrameReader<impl AsyncRead + Unpin>,
        to_peer: &mut (impl AsyncWrite + Unpin),
        offset: u64,
        bulk: &Arc<Bulk>,
    ) -> Result<(), StreamError> {
        let Some((mut state, mut replaced)) = self.0.take().await else { return Ok(()) };
        let (sender, source) = &mut *state;
        let mut source = Flowing { source, bulk };
        if write_frame(to_peer, Kind::Opened, &offset.to_be_bytes()).await.is_err() {
            return Ok(());
        }
        tokio::select! {
            outcome = sender.run(&mut source, from_peer, to_peer, offset) => outcome.map(drop),
            () = replaced.happens() => Ok(()),
        }
    }
}

/// An output while it is served.
struct Flowing<'a> {
    source: &'a mut Source,
    bulk: &'a Arc<Bulk>,
}

impl stream::Source for Flowing<'_> {
    async fn take(&mut self, buffer: &mut [u8]) -> io::Result<Taken> {
        self.source.take(self.bulk, buffer).await
    }
}

/// What a process reads.
#[derive(Debug)]
pub struct Input(Seat<(Receiver, Sink)>);

impl Input {
    /// A stream to which nothing has been written.
    pub fn new(sink: Sink) -> Self {
        Self(Seat::new((Receiver::default(), sink)))
    }

    /// Serves a connection.
    ///
    /// # Errors
    /// The peer breaks the protocol, or the process has closed its input.
    pub async fn serve(
        &self,
        from_peer: &mut FrameReader<impl AsyncRead + Unpin>,
        to_peer: &mut (impl AsyncWrite + Unpin),
    ) -> Result<(), StreamError> {
        let Some((mut state, mut replaced)) = self.0.take().await else { return Ok(()) };
        let (receiver, sink) = &mut *state;
        let received = receiver.received();
        if write_frame(to_peer, Kind::Opened, &received.to_be_bytes()).await.is_err() {
            return Ok(());
        }
        tokio::select! {
            outcome = receiver.run(from_peer, to_peer, sink) => {
                outcome.map(|turn| debug_assert!(matches!(turn, Turn::Finished | Turn::Disconnected)))
            }
            () = replaced.happens() => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncWriteExt, DuplexStream, ReadHalf, duplex, split},
        net::unix::pipe,
        task::JoinHandle,
    };

    use super::*;
    use crate::stream::Flow;

    fn connect(output: &Arc<Output>, offset: u64) -> (FrameReader<ReadHalf<DuplexStream>>, JoinHandle<()>) {
        let (near, far) = duplex(4096);
        let output = Arc::clone(output);
        let serving = tokio::spawn(async move {
            let (read, mut write) = split(near);
            output.serve(&mut FrameReader::new(read), &mut write, offset, &Arc::default()).await.unwrap();
        });
        let (read, write) = split(far);
        // Keeps the connection open without a use of its own.
        tokio::spawn(async move {
            let _write = write;
            std::future::pending::<()>().await;
        });
        (FrameReader::new(read), serving)
    }

    #[tokio::test]
    async fn a_newer_connection_takes_the_stream_over_and_goes_on_where_the_host_is() {
        let (mut process, read) = pipe::pipe().unwrap();
        let output = Arc::new(Output::new(Source::Pipe(Flow::new(read))));
        let (mut first, first_served) = connect(&output, 0);
        assert_eq!(first.next().await.unwrap().0, Kind::Opened);
        process.write_all(b"hello").await.unwrap();
        assert_eq!(first.next().await.unwrap(), (Kind::Data, b"hello".as_slice()));

        let (mut second, _) = connect(&output, 3);
        first_served.await.unwrap();
        assert_eq!(second.next().await.unwrap().0, Kind::Opened);
        assert_eq!(second.next().await.unwrap(), (Kind::Data, b"lo".as_slice()));
        drop(process);
        assert_eq!(second.next().await.unwrap().0, Kind::End);
    }
}
