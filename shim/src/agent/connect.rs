//! Connections to the agent: the control service, the word that it is ready, streams.

use std::{io, time::Duration};

use a3s_box_proto::{
    agent::{Ready, StreamOpen},
    agent_ttrpc::AgentClient,
    ports::{CONTROL, STREAM},
    stream::{FrameError, FrameReader, Kind, parse_offset, write_frame},
};
use protobuf::Message;
use tokio::{
    net::{
        UnixListener, UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
    time::timeout,
};
use ttrpc::asynchronous::{Client, transport::Socket};

use super::{Agent, LONGEST_TEXT};
use crate::{sys::tail::printable, vm::Vm};

/// For the first frame of a connection that the agent has only to find something for.
pub const GREETING_BOUND: Duration = Duration::from_secs(5);

pub(super) async fn control(vm: &dyn Vm) -> io::Result<AgentClient> {
    Ok(AgentClient::new(Client::new(Socket::new(vm.connect(CONTROL).await?))))
}

/// Waits until the agent dials and says that it is ready. Connections that say anything else are dropped.
///
/// # Errors
/// The listener fails.
pub async fn ready(listener: &UnixListener) -> io::Result<Ready> {
    loop {
        let (stream, _) = listener.accept().await?;
        let mut reader = FrameReader::new(stream);
        if let Ok(Ok((Kind::Opened, payload))) = timeout(GREETING_BOUND, reader.next()).await
            && let Ok(ready) = Ready::parse_from_bytes(payload)
        {
            return Ok(ready);
        }
    }
}

/// An open stream connection.
pub struct StreamConnection {
    /// Frames of the agent.
    pub reader: FrameReader<OwnedReadHalf>,
    /// Frames to the agent.
    pub writer: OwnedWriteHalf,
    /// For an input: what the agent already has.
    pub resume: u64,
}

/// Why a stream could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum StreamOpenError {
    /// The channel broke: try again.
    #[error("{0}")]
    Channel(#[from] io::Error),
    /// The agent refuses: there is no such stream.
    #[error("the agent refused the stream: {0}")]
    Refused(String),
}

impl Agent {
    /// Opens a stream of a process, or dials a port.
    ///
    /// # Errors
    /// The channel is broken, the agent does not answer within the bound, or it refuses.
    pub async fn open_stream(
        &self,
        open: &StreamOpen,
        bound: Duration,
    ) -> Result<StreamConnection, StreamOpenError> {
        timeout(bound, self.greet(open)).await.map_err(io::Error::from)?
    }

    async fn greet(&self, open: &StreamOpen) -> Result<StreamConnection, StreamOpenError> {
        let stream: UnixStream = self.vm.connect(STREAM).await?;
        let (reader, mut writer) = stream.into_split();
        let payload = open.write_to_bytes().map_err(io::Error::other)?;
        write_frame(&mut writer, Kind::Open, &payload).await?;
        let mut reader = FrameReader::new(reader);
        let resume = match reader.next().await {
            Ok((Kind::Opened, payload)) => parse_offset(payload).unwrap_or_default(),
            Ok((Kind::Error, text)) => {
                let text = printable(&String::from_utf8_lossy(text), LONGEST_TEXT);
                return Err(StreamOpenError::Refused(text));
            }
            Ok(_) => return Err(StreamOpenError::Refused("an unexpected frame".into())),
            Err(FrameError::Connection(error)) => return Err(error.into()),
            Err(error) => return Err(StreamOpenError::Refused(error.to_string())),
        };
        Ok(StreamConnection { reader, writer, resume })
    }
}
