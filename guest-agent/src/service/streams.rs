//! Connections that carry a process's standard streams, one each.

use std::{convert::Infallible, sync::Arc, time::Duration};

use a3s_box_proto::{
    agent::{Stream, StreamOpen},
    ports,
    stream::{FrameError, FrameReader, Kind, StreamError, write_frame},
};
use protobuf::Message;
use tokio::io::{AsyncWrite, split};

use super::{
    decode::Target,
    forward,
    listener::{HostConnection, HostListener},
};
use crate::{
    container::Containers,
    error::{Error, Failed},
    process::Process,
    stream::Bulk,
};

/// Each process has up to three streams, and replaced ones take a moment to go.
const MOST_CONNECTIONS: usize = 4096;
/// Whoever connects says at once what he wants.
const OPEN_PATIENCE: Duration = Duration::from_secs(10);

/// Begins to listen.
pub fn bind() -> Result<HostListener, Failed> {
    HostListener::bind(ports::STREAM, MOST_CONNECTIONS)
}

/// Serves all stream connections.
pub async fn serve(listener: HostListener, containers: Arc<Containers>) -> Infallible {
    let bulk = Arc::<Bulk>::default();
    loop {
        let connection = listener.accept().await;
        let (containers, bulk) = (Arc::clone(&containers), Arc::clone(&bulk));
        // It ends by itself: with its stream, its connection, or a newer one for the same stream.
        tokio::spawn(async move {
            if let Err(error) = serve_one(connection, &containers, &bulk).await {
                tracing::debug!("stream connection: {error}");
            }
        });
    }
}

async fn serve_one(
    connection: HostConnection,
    containers: &Containers,
    bulk: &Arc<Bulk>,
) -> Result<(), StreamError> {
    let (read, mut to_host) = split(connection);
    let mut from_host = FrameReader::new(read);
    let opened = tokio::time::timeout(OPEN_PATIENCE, read_open(&mut from_host)).await;
    let (open, process) = match opened {
        Err(_) => return Err(StreamError::Protocol("no OPEN came in time")),
        Ok(Err(error)) => return Err(error.into()),
        Ok(Ok(open)) if open.stream.enum_value_or_default() == Stream::TCP => {
            return forward::serve(open.port, &mut from_host, &mut to_host, bulk).await;
        }
        Ok(Ok(open)) => match find(&open, containers) {
            Ok(process) => (open, process),
            Err(error) => return refuse(&mut to_host, &error.to_string()).await,
        },
    };
    let stdio = &process.stdio;
    let served = match open.stream.enum_value_or_default() {
        Stream::STDIN => match &stdio.stdin {
            Some(input) => input.serve(&mut from_host, &mut to_host).await,
            None => return refuse(&mut to_host, "the process has no stdin").await,
        },
        Stream::STDOUT | Stream::STDERR => {
            let is_stdout = open.stream.enum_value_or_default() == Stream::STDOUT;
            match if is_stdout { &stdio.stdout } else { &stdio.stderr } {
                Some(output) => output.serve(&mut from_host, &mut to_host, open.offset, bulk).await,
                None => return refuse(&mut to_host, "the process has no such output").await,
            }
        }
        Stream::TCP | Stream::STREAM_UNSPECIFIED => {
            return refuse(&mut to_host, "the request names no stream").await;
        }
    };
    if let Err(error) = &served {
        refuse(&mut to_host, &error.to_string()).await?;
    }
    served
}

async fn read_open(
    from_host: &mut FrameReader<impl tokio::io::AsyncRead + Unpin>,
) -> Result<StreamOpen, FrameError> {
    match from_host.next().await? {
        (Kind::Open, payload) => StreamOpen::parse_from_bytes(payload)
            .map_err(|_| FrameError::Malformed("OPEN holds no StreamOpen")),
        _ => Err(FrameError::Malformed("a connection begins with OPEN")),
    }
}

fn find(open: &StreamOpen, containers: &Containers) -> Result<Arc<Process>, Error> {
    let target = Target::parse(open.container_id.clone(), open.exec_id.clone())?;
    containers.process(&target.container, target.exec.as_ref())
}

/// Says why not. A host that does not listen to that needs no error here.
pub(super) async fn refuse(to_host: &mut (impl AsyncWrite + Unpin), why: &str) -> Result<(), StreamError> {
    let _ = write_frame(to_host, Kind::Error, why.as_bytes()).await;
    Ok(())
}
