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
    error::{Error, Failed, For, Object, Step},
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
        match outcome(conversation).await {
            Ok(()) => *state = State::Started,
            Err(why) => {
                if matches!(why, NotRun::Refused(_)) {
                    *state = State::Failed;
                }
                return Err(why.of(object()));
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
async fn outcome(conversation: &Conversation) -> Result<(), NotRun> {
    match conversation.next().await? {
        None => Ok(()),
        Some((Reply::Program(message), _)) => Err(NotRun::Refused(message)),
        other => Err(zygote::unexpected("start the program", other).into()),
    }
}

/// Why a program does not run.
#[derive(Debug)]
pub(super) enum NotRun {
    /// There is no such program, or it may not be executed.
    Refused(String),
    /// It did not come to that.
    Failed(Failed),
}

impl From<Failed> for NotRun {
    fn from(failed: Failed) -> Self {
        Self::Failed(failed)
    }
}

impl NotRun {
    /// Says whose program it is.
    pub(super) fn of(self, object: Object) -> Error {
        match self {
            Self::Refused(message) => Error::Program { object, message },
            Self::Failed(source) => Error::Failed { object, source },
        }
    }
}
