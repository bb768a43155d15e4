//! Letting a container's program run.

use std::{
    io::Write,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    sync::Arc,
};

use libcontainer::notify_socket::NOTIFY_FILE;

use super::{Container, Containers, State};
use crate::{
    error::{Error, Failed, For, Step},
    paths,
    process::zygote::{self, Conversation, Reply},
};

impl Containers {
    /// Starts a container; answers the id of its init process. A repeated start changes nothing.
    pub async fn start(&self, container: &Arc<Container>) -> Result<i32, Error> {
        let object = || container.object();
        let mut state = container.state.write().await;
        let conversation = match &*state {
            State::Created(conversation) => conversation,
            State::Started => return Ok(container.init.pid()),
            State::Failed => return Err(container.precondition("its program could not be started")),
            State::Released => return Err(container.precondition("it has been released")),
        };
        if container.init.ended().is_some() {
            return Err(container.precondition("its init process has ended before the start"));
        }
        allow(&socket(container)).of(object)?;
        match outcome(conversation).await.of(object)? {
            Ok(()) => *state = State::Started,
            Err(message) => {
                *state = State::Failed;
                return Err(Error::Program { object: object(), message });
            }
        }
        drop(state);
        tracing::debug!(container = %container.id, "started");
        Ok(container.init.pid())
    }
}

fn socket(container: &Container) -> PathBuf {
    Path::new(paths::STATE).join(container.id.as_str()).join(NOTIFY_FILE)
}

/// Tells the init process, which waits at its socket (libcontainer's own protocol: any bytes, then the end).
fn allow(socket: &Path) -> Result<(), Failed> {
    let step = || "tell the init process to start".to_owned();
    let mut stream = UnixStream::connect(socket).step(step)?;
    stream.write_all(b"start container").step(step)
}

/// The conversation ends when the program runs, or brings why it does not.
async fn outcome(conversation: &Conversation) -> Result<Result<(), String>, Failed> {
    match conversation.next().await? {
        None => Ok(Ok(())),
        Some((Reply::Program(message), _)) => Ok(Err(message)),
        other => Err(zygote::unexpected("start the program", other)),
    }
}
