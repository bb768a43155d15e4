//! The calls that the frontend makes to a shim, each with a bound of its own.

use std::{path::Path, sync::Arc, time::Duration};

use a3s_box_proto::{
    agent,
    cri::PodSandboxConfig,
    ids::{ContainerId, ExecId, SandboxId},
    shim as control,
    shim_ttrpc::ControlClient,
};
use containerd_shim_protos::{
    api::{
        ConnectRequest, CreateTaskRequest, DeleteRequest, ExecProcessRequest, KillRequest, Mount,
        ResizePtyRequest, StartRequest, UpdateTaskRequest, WaitRequest,
    },
    sandbox_api::{
        CreateSandboxRequest, ShutdownSandboxRequest, StartSandboxRequest, StopSandboxRequest,
        WaitSandboxRequest,
    },
    sandbox_async::SandboxClient,
    shim_async::TaskClient,
};
use prost::Message as _;
use protobuf::{Message as _, well_known_types::any::Any};
use tokio::time::timeout;
use ttrpc::{r#async::Client, context};

use super::{ShimError, ShimProcess};
use crate::container::record::RunAs;

/// Answers from the shim's memory.
const FROM_MEMORY: Duration = Duration::from_secs(5);
/// Work of the guest's agent: containers, execs, network.
const BY_AGENT: Duration = Duration::from_secs(60);
/// Figures of one pod; a slow one is left out.
const STATS: Duration = Duration::from_secs(3);
/// What the shim adds to the boot's own timeout: disk, helpers, the error's text.
const AROUND_BOOT: Duration = Duration::from_secs(30);
/// What the shim adds to a stop's grace: the VM's end, children reaped.
const AROUND_STOP: Duration = Duration::from_secs(30);
/// Mounts, sockets and files removed.
const SHUTDOWN: Duration = Duration::from_secs(15);

/// A connection to one pod's shim; clones share it.
#[derive(Clone)]
pub struct Shim {
    id: SandboxId,
    sandbox: SandboxClient,
    task: TaskClient,
    control: ControlClient,
    /// The shim's own process.
    pub process: Arc<ShimProcess>,
}

impl std::fmt::Debug for Shim {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Shim({})", self.id)
    }
}

/// A container to be made in the guest.
#[derive(Debug)]
pub struct CreateTask<'a> {
    /// Its id.
    pub id: &'a ContainerId,
    /// The directory with its `config.json`.
    pub bundle: &'a Path,
    /// EROFS files, lowest layer first.
    pub layers: &'a [std::path::PathBuf],
    /// It wants a terminal.
    pub terminal: bool,
    /// `stdio::Endpoint` of both outputs, or empty.
    pub output: String,
    /// Whom to run as.
    pub run_as: &'a RunAs,
    /// Whether its input can be attached to, and for how long.
    pub stdin: Stdin,
}

/// The input of a container's own process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stdin {
    /// None: it reads the end at once.
    Closed,
    /// It waits for those who attach.
    Open,
    /// It ends when the first who attached to it has gone.
    Once,
}

/// A process to be made in a running container.
#[derive(Debug)]
pub struct ExecTask<'a> {
    /// The container.
    pub container: &'a ContainerId,
    /// The exec's id.
    pub id: &'a ExecId,
    /// OCI's `process` object, JSON.
    pub process: Vec<u8>,
    /// It has a terminal.
    pub terminal: bool,
    /// `stdio::Endpoint` of the input, or empty.
    pub stdin: String,
    /// `stdio::Endpoint` of the output, or empty.
    pub stdout: String,
    /// `stdio::Endpoint` of the errors, or empty.
    pub stderr: String,
}

/// What of a container's process is wanted: `stdio::Endpoint`s, or empty.
#[derive(Debug)]
pub struct AttachTo<'a> {
    /// The container.
    pub container: &'a ContainerId,
    /// Its input.
    pub stdin: String,
    /// Its output.
    pub stdout: String,
    /// Its errors.
    pub stderr: String,
}

/// Figures of a pod.
#[derive(Debug)]
pub struct Stats {
    /// As the guest counts.
    pub guest: agent::StatsResponse,
    /// As the host counts.
    pub host: HostCost,
}

/// What the whole pod takes of the host: VMM, helpers, shim, and with them all of the guest.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct HostCost {
    /// Microseconds of processor time.
    pub cpu_usec: u64,
    /// Bytes.
    pub memory_bytes: u64,
}

impl Shim {
    /// Wraps a connection to the shim of a pod.
    pub fn new(client: &Client, id: SandboxId, process: ShimProcess) -> Self {
        Self {
            id,
            sandbox: SandboxClient::new(client.clone()),
            task: TaskClient::new(client.clone()),
            control: ControlClient::new(client.clone()),
            process: Arc::new(process),
        }
    }

    /// The shim's process id, which is also the proof that it answers.
    pub async fn pid(client: &Client, id: &SandboxId, bound: Duration) -> Result<u32, ShimError> {
        let request = ConnectRequest { id: id.to_string(), ..Default::default() };
        let client = TaskClient::new(client.clone());
        Ok(bounded("Task.Connect", bound, client.connect(within(bound), &request)).await?.shim_pid)
    }

    /// Boots the VM; answers when its agent is ready.
    pub async fn create_sandbox(
        &self,
        bundle: &Path,
        netns: &Path,
        config: &PodSandboxConfig,
        boot_timeout: Duration,
    ) -> Result<(), ShimError> {
        let request = CreateSandboxRequest {
            sandbox_id: self.id.to_string(),
            bundle_path: text(bundle),
            netns_path: text(netns),
            options: Some(any("runtime.v1.PodSandboxConfig", config.encode_to_vec())).into(),
            ..Default::default()
        };
        let bound = boot_timeout + AROUND_BOOT;
        bounded("CreateSandbox", bound, self.sandbox.create_sandbox(within(bound), &request)).await.map(drop)
    }

    /// Gives the booted VM its network, names and sysctls.
    pub async fn start_sandbox(&self) -> Result<(), ShimError> {
        let request = StartSandboxRequest { sandbox_id: self.id.to_string(), ..Default::default() };
        bounded("StartSandbox", BY_AGENT, self.sandbox.start_sandbox(within(BY_AGENT), &request))
            .await
            .map(drop)
    }

    /// Answers when the VM has ended, on its own or by [`Self::stop_sandbox`].
    pub async fn wait_sandbox(&self) -> Result<(), ShimError> {
        let request = WaitSandboxRequest { sandbox_id: self.id.to_string(), ..Default::default() };
        let answer = self.sandbox.wait_sandbox(context::Context::default(), &request).await;
        answer.map_err(failed("WaitSandbox")).map(drop)
    }

    /// Ends all containers and the VM.
    pub async fn stop_sandbox(&self, grace: Duration) -> Result<(), ShimError> {
        let request = StopSandboxRequest {
            sandbox_id: self.id.to_string(),
            timeout_secs: u32::try_from(grace.as_secs()).unwrap_or(u32::MAX),
            ..Default::default()
        };
        let bound = grace + AROUND_STOP;
        bounded("StopSandbox", bound, self.sandbox.stop_sandbox(within(bound), &request)).await.map(drop)
    }

    /// Asks the shim to clean up and end itself.
    pub async fn shutdown_sandbox(&self) -> Result<(), ShimError> {
        let request = ShutdownSandboxRequest { sandbox_id: self.id.to_string(), ..Default::default() };
        bounded("ShutdownSandbox", SHUTDOWN, self.sandbox.shutdown_sandbox(within(SHUTDOWN), &request))
            .await
            .map(drop)
    }

    /// The truth about the pod and its containers.
    pub async fn state(&self) -> Result<control::StateResponse, ShimError> {
        bounded(
            "Control.State",
            FROM_MEMORY,
            self.control.state(within(FROM_MEMORY), &control::StateRequest::new()),
        )
        .await
    }

    /// Makes a container, whose process waits for [`Self::start`].
    pub async fn create(&self, container: &CreateTask<'_>) -> Result<(), ShimError> {
        let layers = container.layers.iter().map(|file| Mount {
            type_: "erofs".to_owned(),
            source: text(file),
            options: vec!["ro".to_owned()],
            ..Default::default()
        });
        let request = CreateTaskRequest {
            id: container.id.to_string(),
            bundle: text(container.bundle),
            rootfs: layers.collect(),
            terminal: container.terminal,
            stdout: container.output.clone(),
            stderr: if container.terminal { String::new() } else { container.output.clone() },
            options: Some(create_options(container.run_as, container.stdin)?).into(),
            ..Default::default()
        };
        bounded("Task.Create", BY_AGENT, self.task.create(within(BY_AGENT), &request)).await.map(drop)
    }

    /// Lets a container, or an exec of it, run.
    pub async fn start(&self, container: &ContainerId, exec: Option<&ExecId>) -> Result<(), ShimError> {
        let request =
            StartRequest { id: container.to_string(), exec_id: exec_text(exec), ..Default::default() };
        bounded("Task.Start", BY_AGENT, self.task.start(within(BY_AGENT), &request)).await.map(drop)
    }

    /// Makes one more process in a container.
    pub async fn exec(&self, exec: ExecTask<'_>) -> Result<(), ShimError> {
        let spec = any("types.containerd.io/opencontainers/runtime-spec/1/Process", exec.process);
        let request = ExecProcessRequest {
            id: exec.container.to_string(),
            exec_id: exec.id.to_string(),
            terminal: exec.terminal,
            stdin: exec.stdin,
            stdout: exec.stdout,
            stderr: exec.stderr,
            spec: Some(spec).into(),
            ..Default::default()
        };
        bounded("Task.Exec", BY_AGENT, self.task.exec(within(BY_AGENT), &request)).await.map(drop)
    }

    /// Answers the exit code when the process has ended.
    pub async fn wait(&self, container: &ContainerId, exec: Option<&ExecId>) -> Result<u32, ShimError> {
        let request =
            WaitRequest { id: container.to_string(), exec_id: exec_text(exec), ..Default::default() };
        let answer = self.task.wait(context::Context::default(), &request).await;
        Ok(answer.map_err(failed("Task.Wait"))?.exit_status)
    }

    /// Sends a signal to a container's process, or to all of its processes.
    pub async fn kill(&self, container: &ContainerId, signal: u32, all: bool) -> Result<(), ShimError> {
        self.signal(container, None, signal, all).await
    }

    /// Kills an exec.
    pub async fn kill_exec(&self, container: &ContainerId, exec: &ExecId) -> Result<(), ShimError> {
        self.signal(container, Some(exec), rustix::process::Signal::KILL.as_raw().unsigned_abs(), false).await
    }

    /// Ends an exec whose client has gone.
    pub async fn hang_up(&self, container: &ContainerId, exec: &ExecId) -> Result<(), ShimError> {
        let request = control::HangUpRequest {
            container_id: container.to_string(),
            exec_id: exec.to_string(),
            ..Default::default()
        };
        bounded("Control.HangUp", BY_AGENT, self.control.hang_up(within(BY_AGENT), &request)).await.map(drop)
    }

    /// Ends all execs of an earlier frontend, without waiting for that.
    pub async fn abandon_execs(&self) -> Result<(), ShimError> {
        let request = control::AbandonExecsRequest::default();
        bounded(
            "Control.AbandonExecs",
            FROM_MEMORY,
            self.control.abandon_execs(within(FROM_MEMORY), &request),
        )
        .await
        .map(drop)
    }

    /// Sets the size of a terminal.
    pub async fn resize(
        &self,
        container: &ContainerId,
        exec: Option<&ExecId>,
        width: u16,
        height: u16,
    ) -> Result<(), ShimError> {
        let request = ResizePtyRequest {
            id: container.to_string(),
            exec_id: exec_text(exec),
            width: width.into(),
            height: height.into(),
            ..Default::default()
        };
        bounded("Task.ResizePty", BY_AGENT, self.task.resize_pty(within(BY_AGENT), &request)).await.map(drop)
    }

    /// Joins a container's process; answers when it has joined.
    pub async fn attach(&self, attach: AttachTo<'_>) -> Result<(), ShimError> {
        let request = control::AttachRequest {
            container_id: attach.container.to_string(),
            stdin: attach.stdin,
            stdout: attach.stdout,
            stderr: attach.stderr,
            ..Default::default()
        };
        bounded("Control.Attach", BY_AGENT, self.control.attach(within(BY_AGENT), &request)).await.map(drop)
    }

    /// Connects a port inside the pod to a socket; answers when both are connected.
    pub async fn port_forward(&self, port: u16, socket: String) -> Result<(), ShimError> {
        let request = control::PortForwardRequest { port: port.into(), socket, ..Default::default() };
        let call = self.control.port_forward(within(BY_AGENT), &request);
        bounded("Control.PortForward", BY_AGENT, call).await.map(drop)
    }

    async fn signal(
        &self,
        container: &ContainerId,
        exec: Option<&ExecId>,
        signal: u32,
        all: bool,
    ) -> Result<(), ShimError> {
        let id = container.to_string();
        let request = KillRequest { id, exec_id: exec_text(exec), signal, all, ..Default::default() };
        bounded("Task.Kill", BY_AGENT, self.task.kill(within(BY_AGENT), &request)).await.map(drop)
    }

    /// Forgets an ended container with its writable layer, or an ended exec.
    pub async fn delete(&self, container: &ContainerId, exec: Option<&ExecId>) -> Result<(), ShimError> {
        let request =
            DeleteRequest { id: container.to_string(), exec_id: exec_text(exec), ..Default::default() };
        bounded("Task.Delete", BY_AGENT, self.task.delete(within(BY_AGENT), &request)).await.map(drop)
    }

    /// Sets the limits of a container: OCI's `linux.resources` object, JSON.
    pub async fn update(&self, container: &ContainerId, resources: Vec<u8>) -> Result<(), ShimError> {
        let resources = any("types.containerd.io/opencontainers/runtime-spec/1/LinuxResources", resources);
        let request = UpdateTaskRequest {
            id: container.to_string(),
            resources: Some(resources).into(),
            ..Default::default()
        };
        bounded("Task.Update", BY_AGENT, self.task.update(within(BY_AGENT), &request)).await.map(drop)
    }

    /// Has the container's log file opened again by its path.
    pub async fn reopen_log(&self, container: &ContainerId) -> Result<(), ShimError> {
        let request = control::ReopenLogRequest { container_id: container.to_string(), ..Default::default() };
        bounded("Control.ReopenLog", FROM_MEMORY, self.control.reopen_log(within(FROM_MEMORY), &request))
            .await
            .map(drop)
    }

    /// Figures of the guest and its containers; with `details`, those that take a look at each process.
    pub async fn stats(&self, details: bool) -> Result<Stats, ShimError> {
        let request = control::StatsRequest { details, ..Default::default() };
        let answer = bounded("Control.Stats", STATS, self.control.stats(within(STATS), &request)).await?;
        let guest = agent::StatsResponse::parse_from_bytes(&answer.agent_stats)
            .map_err(|error| ShimError::Lost { call: "Control.Stats", reason: error.to_string() })?;
        let host = HostCost { cpu_usec: answer.host_cpu_usage_usec, memory_bytes: answer.host_memory_bytes };
        Ok(Stats { guest, host })
    }
}

fn create_options(run_as: &RunAs, stdin: Stdin) -> Result<Any, ShimError> {
    let user = control::UserLookup {
        user: run_as.user.clone(),
        group: run_as.group.clone(),
        supplemental_groups: run_as.supplemental_groups.clone(),
        strict: run_as.strict,
        ..Default::default()
    };
    let options = control::CreateOptions {
        user: Some(user).into(),
        stdin: stdin != Stdin::Closed,
        stdin_once: stdin == Stdin::Once,
        ..Default::default()
    };
    let bytes = options
        .write_to_bytes()
        .map_err(|error| ShimError::Lost { call: "Task.Create", reason: error.to_string() })?;
    Ok(any("a3s.box.shim.v1.CreateOptions", bytes))
}

fn any(type_url: &str, value: Vec<u8>) -> Any {
    Any { type_url: type_url.to_owned(), value, ..Default::default() }
}

fn exec_text(exec: Option<&ExecId>) -> String {
    exec.map(ToString::to_string).unwrap_or_default()
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

/// The shim gives up a little after the frontend, so that the answer's absence is told apart from its refusal.
fn within(bound: Duration) -> context::Context {
    context::with_duration(bound + Duration::from_secs(5))
}

async fn bounded<T>(
    call: &'static str,
    bound: Duration,
    answer: impl Future<Output = ttrpc::Result<T>>,
) -> Result<T, ShimError> {
    match timeout(bound, answer).await {
        Ok(answer) => answer.map_err(failed(call)),
        Err(_) => Err(ShimError::Silent { call, bound }),
    }
}

fn failed(call: &'static str) -> impl FnOnce(ttrpc::Error) -> ShimError {
    move |error| match error {
        ttrpc::Error::RpcStatus(status) => {
            ShimError::Refused { code: status.code(), message: status.message.clone() }
        }
        error => ShimError::Lost { call, reason: error.to_string() },
    }
}
