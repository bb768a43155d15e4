//! One run of one plugin: a program with an environment, a configuration on stdin and a result on stdout.

use std::{
    io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process_group};
use serde::Deserialize;
use serde_json::Value;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt},
    process::{Child, Command},
    time::timeout,
};

use crate::{
    error::PluginError,
    text::{Quoted, plain},
};

/// The longest result that is read.
const MAX_OUTPUT: usize = 1 << 20;
/// How much of the end of stderr is kept.
const MAX_TAIL: usize = 4096;
/// A killed process that is not reaped by then hangs in the kernel.
const REAP_TIMEOUT: Duration = Duration::from_secs(5);

/// Finds a plugin's program.
pub(crate) fn find(dirs: &[PathBuf], kind: &str) -> Option<PathBuf> {
    dirs.iter().map(|dir| dir.join(kind)).find(|path| is_program(path))
}

fn is_program(path: &Path) -> bool {
    path.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

/// A plugin that runs. Dropped before its end, it is killed with all its children.
struct Running {
    child: Child,
    /// Its process group, as long as it is not reaped and the number is its own.
    group: Option<Pid>,
}

impl Running {
    fn start(program: &Path, environment: &[(&str, String)]) -> Result<Self, PluginError> {
        let child = Command::new(program)
            .envs(environment.iter().map(|(key, value)| (key, value)))
            .current_dir("/")
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(|source| PluginError::Spawn { path: program.to_owned(), source })?;
        let group = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        Ok(Self { child, group })
    }

    async fn wait(&mut self) -> io::Result<ExitStatus> {
        let status = self.child.wait().await?;
        self.group = None;
        Ok(status)
    }

    /// Kills the group and sees it gone, so that DEL does not race with it.
    async fn kill(mut self) {
        self.kill_group();
        if timeout(REAP_TIMEOUT, self.wait()).await.is_err() {
            tracing::warn!(pid = self.child.id(), "a killed CNI plugin does not end");
        }
    }

    fn kill_group(&self) {
        if let Some(group) = self.group {
            // It may be gone already.
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill_group();
    }
}

/// Runs a plugin to its end and returns what it printed.
pub(crate) async fn run(
    program: &Path,
    environment: &[(&str, String)],
    input: &[u8],
    limit: Duration,
) -> Result<Vec<u8>, PluginError> {
    let mut running = Running::start(program, environment)?;
    let (mut output, mut tail) = (Vec::new(), Vec::new());
    match timeout(limit, converse(&mut running, input, &mut output, &mut tail)).await {
        Ok(Ok(status)) => judge(status, output, &tail),
        Ok(Err(error)) => {
            running.kill().await;
            Err(error)
        }
        Err(_) => {
            running.kill().await;
            Err(PluginError::TimedOut { after: limit, stderr: stderr(&tail) })
        }
    }
}

async fn converse(
    running: &mut Running,
    input: &[u8],
    output: &mut Vec<u8>,
    tail: &mut Vec<u8>,
) -> Result<ExitStatus, PluginError> {
    let child = &mut running.child;
    let (Some(mut stdin), Some(stdout), Some(stderr)) =
        (child.stdin.take(), child.stdout.take(), child.stderr.take())
    else {
        return Err(io::Error::from(io::ErrorKind::BrokenPipe).into());
    };
    let feed = async move {
        match stdin.write_all(input).await {
            // A plugin need not read its configuration.
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(PluginError::from(error)),
            _ => Ok(()),
        }
    };
    // Reaped only after both pipes are at their end: until then its number is not reused, and its group can be killed.
    tokio::try_join!(feed, read_output(stdout, output), read_tail(stderr, tail))?;
    Ok(running.wait().await?)
}

async fn read_output(stdout: impl AsyncRead + Unpin, output: &mut Vec<u8>) -> Result<(), PluginError> {
    stdout.take(MAX_OUTPUT as u64 + 1).read_to_end(output).await?;
    if output.len() > MAX_OUTPUT {
        return Err(PluginError::TooMuchOutput { limit: MAX_OUTPUT, stdout: Quoted::start(output) });
    }
    Ok(())
}

async fn read_tail(mut stderr: impl AsyncRead + Unpin, tail: &mut Vec<u8>) -> Result<(), PluginError> {
    loop {
        if tail.len() > 2 * MAX_TAIL {
            tail.drain(..tail.len() - MAX_TAIL);
        }
        if stderr.read_buf(tail).await? == 0 {
            return Ok(());
        }
    }
}

fn judge(status: ExitStatus, output: Vec<u8>, tail: &[u8]) -> Result<Vec<u8>, PluginError> {
    if status.success() {
        return Ok(output);
    }
    Err(reported(&output, tail).unwrap_or_else(|| PluginError::Exit {
        status,
        stdout: Quoted::start(&output),
        stderr: stderr(tail),
    }))
}

/// The specification's form of an error.
#[derive(Deserialize)]
struct Report {
    #[serde(default)]
    code: u64,
    msg: String,
    #[serde(default)]
    details: String,
}

fn reported(output: &[u8], tail: &[u8]) -> Option<PluginError> {
    let report: Report = serde_json::from_slice(output).ok()?;
    let mut message = plain(&report.msg);
    if !report.details.trim().is_empty() {
        message.push_str(": ");
        message.push_str(&plain(&report.details));
    }
    Some(PluginError::Reported { code: report.code, message, stderr: stderr(tail) })
}

fn stderr(tail: &[u8]) -> Option<Quoted> {
    (!tail.trim_ascii().is_empty()).then(|| Quoted::end(tail))
}

/// Reads the result of an ADD.
pub(crate) fn parse_result(output: &[u8]) -> Result<Value, PluginError> {
    let garbage = |reason| PluginError::Garbage { reason, stdout: Quoted::start(output) };
    let value: Value = serde_json::from_slice(output).map_err(|error| garbage(error.to_string()))?;
    if value.is_object() { Ok(value) } else { Err(garbage("not an object".into())) }
}
