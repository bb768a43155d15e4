//! One more process in a running container: made, started, waited for, forgotten. Who reads and writes its streams is
//! the caller's business.

use std::{sync::Arc, time::Duration};

use a3s_box_proto::ids::ExecId;
use a3s_box_spec::exec_process;
use tokio::time::timeout;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::warn;

use super::{
    Container,
    record::exit_code,
    shim_socket::{ShimSocket, unused_name},
};
use crate::{
    error::Error,
    node::Node,
    shim::{ExecTask, Shim},
};

/// From SIGKILL or a hang-up to the process's end.
const KILL_BOUND: Duration = Duration::from_secs(10);
/// For whoever waits for an exec's end by force. A guest that is busy, with a fork bomb perhaps, takes longer.
const END_PATIENCE: Duration = Duration::from_secs(2);

/// Which streams a process shall have. A terminal has no error stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Streams {
    /// It reads from us.
    pub stdin: bool,
    /// Its output is wanted.
    pub stdout: bool,
    /// Its errors are wanted.
    pub stderr: bool,
    /// It has a terminal.
    pub tty: bool,
}

/// The sockets at which the shim brings them.
#[derive(Debug)]
pub struct Sockets {
    /// The input.
    pub stdin: Option<ShimSocket>,
    /// The output.
    pub stdout: Option<ShimSocket>,
    /// The errors.
    pub stderr: Option<ShimSocket>,
}

impl Sockets {
    /// Listens for those that are wanted.
    ///
    /// # Errors
    /// The pod's directory cannot hold them.
    pub fn listen(sandbox: &crate::sandbox::Sandbox, streams: Streams, name: &str) -> Result<Self, Error> {
        let listen = |wanted: bool, letter: &str| {
            wanted.then(|| ShimSocket::of_pod(sandbox, &format!("{name}{letter}"))).transpose()
        };
        Ok(Self {
            stdin: listen(streams.stdin, "i")?,
            stdout: listen(streams.stdout, "o")?,
            stderr: listen(streams.stderr && !streams.tty, "e")?,
        })
    }

    /// A socket as the shim is told it; empty where there is none.
    pub fn endpoint(socket: Option<&ShimSocket>) -> String {
        socket.map(ShimSocket::endpoint).unwrap_or_default()
    }
}

/// A process that is run in a container besides its own.
#[derive(Debug)]
pub struct Exec {
    node: Arc<Node>,
    /// In which container.
    pub container: Arc<Container>,
    /// Which.
    pub id: ExecId,
    shim: Shim,
    process: serde_json::Value,
    tty: bool,
    /// The start, which nobody's leaving interrupts: else it might run after its end was seen to.
    starting: TaskTracker,
    started: CancellationToken,
}

impl Exec {
    /// Prepares a process and the sockets of its streams. Nothing runs yet.
    ///
    /// # Errors
    /// The container does not run, the command is none, or the sockets cannot be made.
    pub async fn prepare(
        node: &Arc<Node>,
        container: &Arc<Container>,
        command: &[String],
        streams: Streams,
    ) -> Result<(Self, Sockets), Error> {
        container.require_running("exec")?;
        let process = exec_process(container.process().await?, command, streams.tty)?;
        let sandbox = container.pod(node)?;
        let name = unused_name();
        let sockets = Sockets::listen(&sandbox, streams, &name)?;
        let exec = Self {
            node: node.clone(),
            container: container.clone(),
            shim: sandbox.shim()?,
            id: name.parse().map_err(|error| Error::Invalid(format!("exec: {error}")))?,
            process,
            tty: streams.tty,
            starting: TaskTracker::new(),
            started: CancellationToken::new(),
        };
        Ok((exec, sockets))
    }

    /// The size of its terminal from the first moment on.
    pub fn set_terminal_size(&mut self, width: u16, height: u16) {
        self.process["consoleSize"] = serde_json::json!({ "width": width, "height": height });
    }

    /// Runs it; the shim connects to the sockets meanwhile.
    ///
    /// # Errors
    /// The program cannot be run, or the shim fails.
    pub async fn start(&self, sockets: &Sockets) -> Result<(), Error> {
        let process = serde_json::to_vec(&self.process)
            .map_err(|error| Error::Invalid(format!("exec: cannot encode the process: {error}")))?;
        let (shim, container, id, terminal) =
            (self.shim.clone(), self.container.clone(), self.id.clone(), self.tty);
        let stdin = Sockets::endpoint(sockets.stdin.as_ref());
        let stdout = Sockets::endpoint(sockets.stdout.as_ref());
        let stderr = Sockets::endpoint(sockets.stderr.as_ref());
        let starting = self.starting.spawn(async move {
            let (container, id) = (&container.id, &id);
            shim.exec(ExecTask { container, id, process, terminal, stdin, stdout, stderr }).await?;
            shim.start(container, Some(id)).await
        });
        starting.await.map_err(|error| Error::Abandoned(error.to_string()))??;
        self.started.cancel();
        Ok(())
    }

    /// Waits until it has been started.
    pub async fn started(&self) {
        self.started.cancelled().await;
    }

    /// Whether it has been started.
    pub fn has_started(&self) -> bool {
        self.started.is_cancelled()
    }

    /// What remains of an output's error: before the start it is only a sign that the process cannot be started, of
    /// which the start itself tells why.
    pub async fn broken_off(&self, error: Error) -> Error {
        self.started().await;
        error
    }

    /// Waits for its end; its exit code.
    ///
    /// # Errors
    /// The shim fails.
    pub async fn wait(&self) -> Result<i32, Error> {
        Ok(exit_code(self.shim.wait(&self.container.id, Some(&self.id)).await?))
    }

    /// Sets the size of its terminal.
    ///
    /// # Errors
    /// It does not run, or has no terminal.
    pub async fn resize(&self, width: u16, height: u16) -> Result<(), Error> {
        Ok(self.shim.resize(&self.container.id, Some(&self.id), width, height).await?)
    }

    /// Ends it by force. That goes on where it takes long, and nobody waits for it any more.
    pub async fn end(self) {
        let node = self.node.clone();
        let ending = node.work.spawn(async move { self.kill().await });
        let _ = timeout(END_PATIENCE, ending).await;
    }

    async fn kill(&self) {
        settled(&self.starting).await;
        let killed = self.shim.kill_exec(&self.container.id, &self.id).await;
        self.see_it_end(killed, "killed").await;
    }

    /// Ends it because its client has gone: hangs its terminal up, or kills it where it has none.
    pub async fn hang_up(&self) {
        settled(&self.starting).await;
        let hung_up = self.shim.hang_up(&self.container.id, &self.id).await;
        self.see_it_end(hung_up, "hung up").await;
    }

    async fn see_it_end(&self, done: Result<(), crate::shim::ShimError>, how: &'static str) {
        match done {
            // It has ended by itself meanwhile.
            Err(error) if error.is_not_found() || error.is_wrong_state() => return,
            Err(error) => {
                warn!(container = %self.container.id, exec = %self.id, %error, "an exec cannot be {how}");
                return;
            }
            Ok(()) => {}
        }
        let ended = self.shim.wait(&self.container.id, Some(&self.id));
        if timeout(KILL_BOUND, ended).await.is_err() {
            warn!(container = %self.container.id, exec = %self.id, "an exec that was {how} does not end");
        }
    }
}

/// An exec that is over is forgotten by the shim; nobody has to wait for that.
impl Drop for Exec {
    fn drop(&mut self) {
        let (shim, container, id) = (self.shim.clone(), self.container.clone(), self.id.clone());
        let starting = self.starting.clone();
        self.node.work.spawn(async move {
            settled(&starting).await;
            match shim.delete(&container.id, Some(&id)).await {
                Err(error) if !error.is_not_found() => {
                    warn!(container = %container.id, exec = %id, %error, "an ended exec cannot be deleted");
                }
                _ => {}
            }
        });
    }
}

/// Waits until an exec is no longer being started: the shim and the agent have bounds for that.
async fn settled(starting: &TaskTracker) {
    starting.close();
    starting.wait().await;
}
