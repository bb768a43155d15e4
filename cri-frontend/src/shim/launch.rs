//! Running the shim's program: `start` begins a pod, `delete` cleans up after a dead shim.

use std::{
    io,
    path::{Path, PathBuf},
    process::{Output, Stdio},
    time::Duration,
};

use a3s_box_proto::{config, ids::SandboxId};
use containerd_shim_protos::bootstrap_api::{BootstrapParams, BootstrapResult};
use protobuf::Message;
use rustix::process::{Signal, getpid, getppid, set_parent_process_death_signal};
use tokio::{io::AsyncWriteExt, process::Command, time::timeout};

use super::ShimError;

/// The shim's socket in its pod's directory.
pub const SOCKET: &str = "shim.sock";
/// containerd's name space of Kubernetes' pods.
const NAMESPACE: &str = "k8s.io";
/// How much of the shim's output an error quotes.
const QUOTED_BYTES: usize = 2048;

/// What the program is asked to do.
#[derive(Debug, Clone, Copy)]
enum Action {
    /// Begin a pod.
    Start,
    /// Clean up after a dead shim.
    Delete,
}

impl Action {
    fn name(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Delete => "delete",
        }
    }

    /// How long it may take.
    fn bound(self) -> Duration {
        match self {
            // It only forks and listens.
            Self::Start => Duration::from_secs(15),
            // Kills, unmounts and removes what a pod left.
            Self::Delete => Duration::from_secs(30),
        }
    }
}

/// How shims are run on this node.
#[derive(Debug, Clone)]
pub struct Shims {
    /// The program.
    pub program: PathBuf,
    /// The configuration that the shims are to read.
    pub config_path: PathBuf,
}

impl Shims {
    /// Starts the shim of a pod whose directory exists. Answers when its socket listens.
    pub async fn start(&self, sandbox: &SandboxId, bundle: &Path) -> Result<(), ShimError> {
        let params = BootstrapParams {
            instance_id: sandbox.to_string(),
            namespace: NAMESPACE.to_owned(),
            ..BootstrapParams::default()
        };
        let input = params.write_to_bytes().map_err(|error| ShimError::BadAnswer(error.to_string()))?;
        let output = self.run(Action::Start, sandbox, bundle, &input).await?;
        let answer = BootstrapResult::parse_from_bytes(&output.stdout)
            .map_err(|error| ShimError::BadAnswer(format!("{}: {error}", quote(&output.stdout))))?;
        let expected = format!("unix://{}", bundle.join(SOCKET).display());
        if answer.address != expected || answer.protocol != "ttrpc" {
            let got =
                format!("{} at {:?}; ttrpc at {expected:?} was expected", answer.protocol, answer.address);
            return Err(ShimError::BadAnswer(got));
        }
        Ok(())
    }

    /// Cleans up all that a pod's shim left: processes, mounts, scratch disk, cgroup. Also where nothing is left.
    pub async fn delete(&self, sandbox: &SandboxId, bundle: &Path) -> Result<(), ShimError> {
        self.run(Action::Delete, sandbox, bundle, &[]).await.map(drop)
    }

    async fn run(
        &self,
        action: Action,
        sandbox: &SandboxId,
        bundle: &Path,
        input: &[u8],
    ) -> Result<Output, ShimError> {
        let cannot_run = |source| ShimError::Run { program: self.program.clone(), source };
        let mut child = self.command(action, sandbox, bundle).spawn().map_err(cannot_run)?;
        let work = async {
            if let Some(mut stdin) = child.stdin.take() {
                // A program that ended before it read its input tells why by its status.
                let _ = stdin.write_all(input).await;
            }
            child.wait_with_output().await
        };
        let (action, bound) = (action.name(), action.bound());
        let output = match timeout(bound, work).await {
            Ok(output) => output.map_err(cannot_run)?,
            Err(_) => return Err(ShimError::Slow { action, bound }),
        };
        if !output.status.success() {
            let said = if output.stderr.is_empty() { &output.stdout } else { &output.stderr };
            return Err(ShimError::Failed { action, status: output.status.to_string(), output: quote(said) });
        }
        Ok(output)
    }

    fn command(&self, action: Action, sandbox: &SandboxId, bundle: &Path) -> Command {
        let mut command = Command::new(&self.program);
        command.args([
            "-namespace",
            NAMESPACE,
            "-id",
            sandbox.as_str(),
            "-address",
            "",
            "-publish-binary",
            "",
        ]);
        if let Action::Delete = action {
            command.arg("-bundle").arg(bundle);
        }
        // Nothing of the frontend's own surroundings (a service manager's sockets, credentials) reaches a pod.
        let path = std::env::var_os("PATH").unwrap_or_else(|| "/usr/sbin:/usr/bin:/sbin:/bin".into());
        command.arg(action.name()).current_dir(bundle).env_clear().env("PATH", path);
        command.env(config::PATH_VARIABLE, &self.config_path);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        if let Action::Start = action {
            end_with_parent(&mut command);
        }
        command
    }
}

/// A start whose frontend was killed ends with it: the next frontend finds a shim that listens, or none that comes later.
/// The shim itself, which `start` leaves behind, does not inherit this.
fn end_with_parent(command: &mut Command) {
    let parent = getpid();
    let before_exec = move || {
        set_parent_process_death_signal(Some(Signal::KILL))?;
        // It may have died between the fork and the line above.
        if getppid() == Some(parent) { Ok(()) } else { Err(io::ErrorKind::BrokenPipe.into()) }
    };
    // SAFETY: between fork and exec the closure makes two system calls and allocates nothing.
    unsafe { command.pre_exec(before_exec) };
}

/// The end of what a program said, without control characters.
fn quote(bytes: &[u8]) -> String {
    let tail = &bytes[bytes.len().saturating_sub(QUOTED_BYTES)..];
    String::from_utf8_lossy(tail).trim().escape_debug().to_string()
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt};

    use super::*;

    fn program(dir: &Path, text: &str) -> Shims {
        let program = dir.join("shim");
        fs::write(&program, format!("#!/bin/sh\n{text}\n")).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        Shims { program, config_path: "/etc/test.toml".into() }
    }

    #[tokio::test]
    async fn a_shim_that_fails_is_quoted() {
        let dir = tempfile::tempdir().unwrap();
        let shims = program(dir.path(), "echo 'no such kernel' >&2; exit 3");
        let error = shims.start(&"pod".parse().unwrap(), dir.path()).await.unwrap_err().to_string();
        assert!(
            error.contains("start") && error.contains("no such kernel") && error.contains('3'),
            "{error}"
        );
    }

    #[tokio::test]
    async fn a_shim_sees_its_configuration_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let shims = program(dir.path(), "env > seen; echo \"$@\" >> seen");
        shims.delete(&"pod".parse().unwrap(), dir.path()).await.unwrap();
        let seen = fs::read_to_string(dir.path().join("seen")).unwrap();
        assert!(seen.contains("A3S_BOX_CONFIG=/etc/test.toml") && !seen.contains("CARGO"), "{seen}");
        assert!(seen.contains("-id pod") && seen.trim_end().ends_with("delete"), "{seen}");
    }

    #[tokio::test]
    async fn garbage_from_a_shim_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let shims = program(dir.path(), "echo hello");
        assert!(matches!(
            shims.start(&"pod".parse().unwrap(), dir.path()).await,
            Err(ShimError::BadAnswer(_))
        ));
    }
}
