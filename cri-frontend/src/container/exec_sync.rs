//! ExecSync: one more process in a container, its output and its exit code.

use std::{sync::Arc, time::Duration};

use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::{
    exec::{Exec, Sockets, Streams},
    output::{Budget, Capture},
};
use crate::{error::Error, node::Node};

/// Both streams together. kubelet takes a message of 16 MiB in all.
const OUTPUT_BYTES: usize = 16 * 1024 * 1024 - 64 * 1024;
/// After the exit, for output that children left behind still hold up.
const DRAIN: Duration = Duration::from_secs(2);

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
    let streams = Streams { stdin: false, stdout: true, stderr: true, tty: false };
    let (exec, sockets) = Exec::prepare(node, &container, &command, streams).await?;
    let gone = CancellationToken::new();
    let _cancels = gone.clone().drop_guard();
    node.finish(run(exec, sockets, limit, gone, node.shutdown.clone())).await
}

async fn run(
    exec: Exec,
    sockets: Sockets,
    limit: Option<Duration>,
    gone: CancellationToken,
    ending: CancellationToken,
) -> Result<Outcome, Error> {
    let overdue = async {
        match limit {
            Some(limit) => sleep(limit).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        result = complete(&exec, &sockets) => {
            if result.is_err() {
                // It may run all the same, with nobody who reads its output.
                exec.end().await;
            }
            result
        }
        () = overdue => {
            let what = if exec.has_started() { "exec" } else { "the start of an exec" };
            let what = format!("{what} in container {}", exec.container.id);
            exec.end().await;
            Err(Error::Timeout { what, bound: limit.unwrap_or_default() })
        }
        () = gone.cancelled() => {
            exec.end().await;
            Err(Error::Abandoned("the client has gone".into()))
        }
        () = ending.cancelled() => {
            let what = format!("exec in container {}", exec.container.id);
            exec.end().await;
            Err(Error::Ending(what))
        }
    }
}

async fn complete(exec: &Exec, sockets: &Sockets) -> Result<Outcome, Error> {
    let (mut stdout, mut stderr) = (Capture::default(), Capture::default());
    let budget = Budget::new(OUTPUT_BYTES);
    let ended = CancellationToken::new();
    let running = async {
        let code = async {
            exec.start(sockets).await?;
            exec.wait().await
        }
        .await;
        ended.cancel();
        code
    };
    let reading = async {
        tokio::try_join!(
            stdout.fill(sockets.stdout.as_ref(), &budget),
            stderr.fill(sockets.stderr.as_ref(), &budget)
        )
    };
    let drained = async {
        ended.cancelled().await;
        sleep(DRAIN).await;
    };
    let whole = async {
        tokio::select! {
            read = reading => match read {
                Ok(_) => Ok(()),
                Err(error) => Err(exec.broken_off(error).await),
            },
            () = drained => Ok(()),
        }
    };
    // An exec that cannot even begin has no output to wait for.
    let (exit_code, ()) = tokio::try_join!(running, whole)?;
    Ok(Outcome { stdout: stdout.take(), stderr: stderr.take(), exit_code })
}
