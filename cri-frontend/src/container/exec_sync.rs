//! ExecSync: one more process in a container, its output and its exit code.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use a3s_box_proto::{ids::ExecId, stdio::Endpoint};
use a3s_box_spec::exec_process;
use serde_json::Value;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::{
    Container,
    output::{Budget, Capture},
    record::exit_code,
};
use crate::{
    clock::unix_nanos,
    error::Error,
    node::Node,
    shim::{ExecTask, Shim},
};

/// Both streams together. kubelet takes a message of 16 MiB in all.
const OUTPUT_BYTES: usize = 16 * 1024 * 1024 - 64 * 1024;
/// After the exit, for output that children left behind still hold up.
const DRAIN: Duration = Duration::from_secs(2);
/// From SIGKILL to the exec's end.
const KILL_BOUND: Duration = Duration::from_secs(10);
/// The pod's directory of execs' sockets.
pub const SOCKETS: &str = "x";

/// What a process left.
#[derive(Debug)]
pub struct Outcome {
    /// Its output, or the beginning of it.
    pub stdout: Vec<u8>,
    /// Its errors, or the beginning of them.
    pub stderr: Vec<u8>,
    /// 0 to 255.
    pub exit_code: i32,
}

/// Runs a command to its end, or to the end of its time, or to the client's leaving.
pub async fn exec_sync(
    node: &Arc<Node>,
    id: &str,
    command: Vec<String>,
    limit: Option<Duration>,
) -> Result<Outcome, Error> {
    let container = node.containers.get(id)?;
    container.require_running("exec")?;
    let process = exec_process(container.process().await?, &command, false)?;
    let exec = Exec::new(node, &container, &process)?;
    let gone = CancellationToken::new();
    let _cancels = gone.clone().drop_guard();
    node.finish(exec.run(limit, gone)).await
}

struct Exec {
    node: Arc<Node>,
    container: Arc<Container>,
    shim: Shim,
    id: ExecId,
    process: Vec<u8>,
    stdout: Capture,
    stderr: Capture,
}

impl Exec {
    fn new(node: &Arc<Node>, container: &Arc<Container>, process: &Value) -> Result<Self, Error> {
        let sandbox = container.pod(node)?;
        let name = unused_name();
        let listen = |stream: &str| {
            let path = sandbox.bundle.join(SOCKETS).join(format!("{name}{stream}"));
            Capture::listen(path.clone()).map_err(Error::file("listen at", path))
        };
        Ok(Self {
            node: node.clone(),
            container: container.clone(),
            shim: sandbox.shim()?,
            process: serde_json::to_vec(process)
                .map_err(|error| Error::Invalid(format!("exec: cannot encode the process: {error}")))?,
            stdout: listen("o")?,
            stderr: listen("e")?,
            id: name.parse().map_err(|error| Error::Invalid(format!("exec: {error}")))?,
        })
    }

    async fn run(mut self, limit: Option<Duration>, gone: CancellationToken) -> Result<Outcome, Error> {
        let overdue = async {
            match limit {
                Some(limit) => sleep(limit).await,
                None => std::future::pending().await,
            }
        };
        let (shim, container, id) = (self.shim.clone(), self.container.clone(), self.id.clone());
        let result = tokio::select! {
            result = self.complete() => result,
            () = overdue => {
                self.kill().await;
                let bound = limit.unwrap_or_default();
                Err(Error::Timeout { what: format!("exec in container {}", container.id), bound })
            }
            () = gone.cancelled() => {
                self.kill().await;
                Err(Error::Abandoned("the client has gone".into()))
            }
        };
        // Nobody has to wait for this.
        self.node.work.spawn(async move {
            match shim.delete(&container.id, Some(&id)).await {
                Err(error) if !error.is_not_found() => {
                    warn!(container = %container.id, exec = %id, %error, "an ended exec cannot be deleted");
                }
                _ => {}
            }
        });
        result
    }

    async fn complete(&mut self) -> Result<Outcome, Error> {
        let Self { shim, container, id, process, stdout, stderr, .. } = self;
        let budget = Budget::new(OUTPUT_BYTES);
        let ended = CancellationToken::new();
        let task = ExecTask {
            container: &container.id,
            id,
            process: std::mem::take(process),
            stdout: Endpoint::Socket(stdout.path().to_owned()).to_string(),
            stderr: Endpoint::Socket(stderr.path().to_owned()).to_string(),
        };
        let running = async {
            let code = async {
                shim.exec(task).await?;
                shim.start(&container.id, Some(id)).await?;
                shim.wait(&container.id, Some(id)).await
            }
            .await;
            ended.cancel();
            code
        };
        let reading = async { tokio::join!(stdout.fill(&budget), stderr.fill(&budget)) };
        let drained = async {
            ended.cancelled().await;
            sleep(DRAIN).await;
        };
        let whole = async {
            tokio::select! { _ = reading => {} () = drained => {} }
            Ok(())
        };
        // An exec that cannot even begin has no output to wait for.
        let (code, ()) = tokio::try_join!(running, whole)?;
        Ok(Outcome { stdout: stdout.take(), stderr: stderr.take(), exit_code: exit_code(code) })
    }

    async fn kill(&self) {
        if let Err(error) = self.shim.kill_exec(&self.container.id, &self.id).await {
            warn!(container = %self.container.id, exec = %self.id, %error, "an exec cannot be killed");
            return;
        }
        let ended = self.shim.wait(&self.container.id, Some(&self.id));
        if timeout(KILL_BOUND, ended).await.is_err() {
            warn!(container = %self.container.id, exec = %self.id, "a killed exec does not end");
        }
    }
}

/// Unused also by a frontend that was killed before this one.
fn unused_name() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let first = || u64::try_from(unix_nanos()).unwrap_or(1);
    let _ = NEXT.compare_exchange(0, first(), Ordering::Relaxed, Ordering::Relaxed);
    format!("{:x}", NEXT.fetch_add(1, Ordering::Relaxed))
}
