//! Carries one standard stream between the guest and the host, over as many connections as it takes.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use a3s_box_proto::{
    agent::{Stream, StreamOpen},
    stream::{BulkFile, Receiver, Sender, StreamError, Turn},
};
use tokio::{
    io::{AsyncRead, ReadBuf},
    time::sleep,
};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tracing::{debug, warn};

use super::{Sink, Source};
use crate::agent::{
    Agent, ProcessRef,
    connect::{GREETING_BOUND, StreamConnection, StreamOpenError},
};

/// Between two connections.
const REDIAL_PAUSE: Duration = Duration::from_millis(50);

/// Carries an output until its end. Without a reader on the host it is read all the same: the process must not wait.
/// The guest may put much of it into the file.
pub async fn output(agent: Agent, process: ProcessRef, stream: Stream, bulk: BulkFile, mut sink: Sink) {
    let mut receiver = Receiver::with(bulk);
    while let Some(mut connection) = dial(&agent, &process, stream, receiver.received()).await {
        match receiver.run(&mut connection.reader, &mut connection.writer, &mut sink).await {
            Ok(Turn::Finished) => return,
            Ok(Turn::Disconnected) | Err(StreamError::Connection(_)) => sleep(REDIAL_PAUSE).await,
            Err(StreamError::Local(error)) => {
                debug!(?process, ?stream, %error, "nobody reads any more");
                sink = Box::pin(tokio::io::sink());
            }
            Err(StreamError::Protocol(what)) => {
                warn!(?process, ?stream, what, "the guest broke the stream's protocol");
                return;
            }
        }
    }
}

/// Carries an input until its end, or until `close` says that there shall be no more.
pub async fn input(agent: Agent, process: ProcessRef, source: Source, close: CancellationToken) {
    let mut source = Closable { source, closed: Box::pin(close.cancelled_owned()) };
    let mut sender = Sender::default();
    while let Some(mut connection) = dial(&agent, &process, Stream::STDIN, 0).await {
        let resume = connection.resume;
        match sender.run(&mut source, &mut connection.reader, &mut connection.writer, resume).await {
            Ok(Turn::Finished) => return,
            Ok(Turn::Disconnected) => sleep(REDIAL_PAUSE).await,
            Err(error) => {
                debug!(?process, %error, "the input ended early");
                return;
            }
        }
    }
}

/// Opens the stream; dials again while the channel is broken. None where the agent knows no such stream.
async fn dial(agent: &Agent, process: &ProcessRef, stream: Stream, offset: u64) -> Option<StreamConnection> {
    let open = StreamOpen {
        container_id: process.container.to_string(),
        exec_id: process.exec_text(),
        stream: stream.into(),
        offset,
        ..StreamOpen::default()
    };
    loop {
        match agent.open_stream(&open, GREETING_BOUND).await {
            Ok(connection) => return Some(connection),
            Err(StreamOpenError::Channel(_)) => sleep(REDIAL_PAUSE).await,
            Err(error @ StreamOpenError::Refused(_)) => {
                debug!(?process, ?stream, %error, "no stream");
                return None;
            }
        }
    }
}

/// A source that ends early when it is told to; what was there before comes first.
struct Closable {
    source: Source,
    closed: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl AsyncRead for Closable {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.source.as_mut().poll_read(context, buffer) {
            // A source that fails has ended.
            Poll::Ready(_) => Poll::Ready(Ok(())),
            Poll::Pending => self.closed.as_mut().poll(context).map(Ok),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn a_closed_input_ends_after_what_was_there() {
        let (mut near, far) = tokio::io::duplex(64);
        let close = CancellationToken::new();
        let mut source =
            Closable { source: Box::pin(far), closed: Box::pin(close.clone().cancelled_owned()) };
        near.write_all(b"last words").await.unwrap();
        close.cancel();
        let mut got = String::new();
        source.read_to_string(&mut got).await.unwrap();
        assert_eq!(got, "last words");
    }
}
