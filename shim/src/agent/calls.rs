//! The agent's calls, each with its time.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use a3s_box_proto::{
    agent::{
        ConfigureSandboxRequest, CreateContainerRequest, DeleteRequest, ExecRequest, HangUpRequest,
        MirrorVolumeRequest, ProvideMemoryRequest, ReleaseContainerRequest, ReleaseVolumesRequest,
        ResizePtyRequest, SetClockRequest, ShutdownRequest, SignalRequest, StartContainerRequest,
        StatsRequest, StatsResponse, UpdateResourcesRequest, User, WaitRequest,
    },
    ids::{ContainerId, ExecId},
};
use tokio::time::{Instant, sleep, timeout};
use tracing::warn;
use ttrpc::Code;

use super::{Agent, AgentError, check};

/// For calls that touch no image and no volume.
const SHORT: Duration = Duration::from_secs(15);
/// For calls that mount, unmount or start programs: below kubelet's two minutes.
const LONG: Duration = Duration::from_secs(90);
/// What starts too late is looked for so often.
const LATE_TURN: Duration = Duration::from_millis(500);
/// A wait for an exit is asked anew after this long.
pub(super) const WAIT_TURN: Duration = Duration::from_secs(3600);

/// One process in the guest: a container's first, or an exec's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProcessRef {
    /// The container.
    pub container: ContainerId,
    /// None for the container's first process.
    pub exec: Option<ExecId>,
}

impl ProcessRef {
    /// The exec's id as the protocol has it: empty for the container's first process.
    pub fn exec_text(&self) -> String {
        self.exec.as_ref().map(ToString::to_string).unwrap_or_default()
    }
}

/// How a process ended, as the guest says; checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GuestExit {
    /// 0 to 255.
    pub code: u8,
    /// When, by the guest's clock.
    pub at: SystemTime,
    /// The kernel killed a process of the container for want of memory.
    pub oom_killed: bool,
}

macro_rules! call {
    ($self:ident, $method:ident, $within:expr, $request:expr) => {{
        let request = $request;
        let request = &request;
        $self
            .call(stringify!($method), $within, |client, context| async move {
                client.$method(context, request).await
            })
            .await
    }};
}

#[allow(missing_docs, reason = "each is the call of that name in agent.proto")]
impl Agent {
    pub async fn configure_sandbox(&self, request: ConfigureSandboxRequest) -> Result<(), AgentError> {
        call!(self, configure_sandbox, LONG, request).map(drop)
    }

    pub async fn set_clock(&self) -> Result<(), AgentError> {
        self.call("set_clock", SHORT, |client, context| async move {
            // Read for each attempt: a time that waited is no time.
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            let request = SetClockRequest {
                unix_nanos: i64::try_from(now.as_nanos()).unwrap_or(i64::MAX),
                ..Default::default()
            };
            client.set_clock(context, &request).await
        })
        .await
        .map(drop)
    }

    pub async fn shutdown(&self, grace: Duration) -> Result<(), AgentError> {
        let grace_ms = u32::try_from(grace.as_millis()).unwrap_or(u32::MAX);
        let request = ShutdownRequest { grace_ms, ..Default::default() };
        call!(self, shutdown, grace.saturating_add(SHORT), request).map(drop)
    }

    pub async fn create_container(
        &self,
        id: &ContainerId,
        request: CreateContainerRequest,
    ) -> Result<User, AgentError> {
        let request = CreateContainerRequest { container_id: id.to_string(), ..request };
        let answer = call!(self, create_container, LONG, request);
        if let Err(AgentError::TimedOut { .. }) = answer {
            // The guest may be at it still: it deletes when it has made it.
            let process = ProcessRef { container: id.clone(), exec: None };
            if let Err(error) = self.delete(&process).await {
                warn!(container = %id, %error, "a container that was made too late is left in the guest");
            }
        }
        check::user(answer?.user.into_option().unwrap_or_default())
    }

    pub async fn start_container(&self, id: &ContainerId) -> Result<(), AgentError> {
        let request = StartContainerRequest { container_id: id.to_string(), ..Default::default() };
        let answer = call!(self, start_container, LONG, request).map(drop);
        if let Err(AgentError::TimedOut { .. }) = answer {
            self.end_late(&ProcessRef { container: id.clone(), exec: None }).await;
        }
        answer
    }

    pub async fn exec(&self, process: &ProcessRef, request: ExecRequest) -> Result<(), AgentError> {
        let request = ExecRequest {
            container_id: process.container.to_string(),
            exec_id: process.exec_text(),
            ..request
        };
        let answer = call!(self, exec, LONG, request).map(drop);
        if let Err(AgentError::TimedOut { .. }) = answer {
            self.end_late(process).await;
        }
        answer
    }

    /// Ends what the guest may be starting still, or have started: nobody here will watch over it.
    async fn end_late(&self, process: &ProcessRef) {
        let end = async {
            let all = process.exec.is_none();
            let deadline = Instant::now() + SHORT;
            // The guest knows an exec by its name only once it runs.
            while let Err(error) = self.signal(process, libc::SIGKILL.cast_unsigned(), all).await {
                if error.code() != Code::NOT_FOUND || Instant::now() > deadline {
                    return Err(error);
                }
                sleep(LATE_TURN).await;
            }
            if let Ok(told) = timeout(SHORT, self.wait(process)).await {
                told?;
            }
            // A container is deleted by who made it.
            if all { Ok(()) } else { self.delete(process).await }
        };
        if let Err(error) = end.await {
            warn!(?process, %error, "what was started too late may run in the guest");
        }
    }

    pub async fn signal(&self, process: &ProcessRef, signal: u32, all: bool) -> Result<(), AgentError> {
        let request = SignalRequest {
            container_id: process.container.to_string(),
            exec_id: process.exec_text(),
            signal,
            all,
            ..Default::default()
        };
        call!(self, signal, SHORT, request).map(drop)
    }

    pub async fn wait(&self, process: &ProcessRef) -> Result<GuestExit, AgentError> {
        loop {
            let request = WaitRequest {
                container_id: process.container.to_string(),
                exec_id: process.exec_text(),
                ..Default::default()
            };
            match call!(self, wait, WAIT_TURN, request) {
                Ok(answer) => return check::exit(&answer),
                Err(AgentError::TimedOut { .. }) => {}
                Err(error) => return Err(error),
            }
        }
    }

    pub async fn resize(&self, process: &ProcessRef, width: u32, height: u32) -> Result<(), AgentError> {
        let request = ResizePtyRequest {
            container_id: process.container.to_string(),
            exec_id: process.exec_text(),
            width,
            height,
            ..Default::default()
        };
        call!(self, resize_pty, SHORT, request).map(drop)
    }

    pub async fn hang_up(&self, process: &ProcessRef) -> Result<(), AgentError> {
        let request = HangUpRequest {
            container_id: process.container.to_string(),
            exec_id: process.exec_text(),
            ..Default::default()
        };
        call!(self, hang_up, SHORT, request).map(drop)
    }

    pub async fn update(&self, id: &ContainerId, resources: Vec<u8>) -> Result<(), AgentError> {
        let request =
            UpdateResourcesRequest { container_id: id.to_string(), resources, ..Default::default() };
        call!(self, update_resources, SHORT, request).map(drop)
    }

    pub async fn release(&self, id: &ContainerId) -> Result<(), AgentError> {
        let request = ReleaseContainerRequest { container_id: id.to_string(), ..Default::default() };
        call!(self, release_container, LONG, request).map(drop)
    }

    pub async fn mirror_volume(
        &self,
        name: &str,
        data: &str,
        max_bytes: u64,
        max_entries: u64,
    ) -> Result<(), AgentError> {
        let (name, data) = (name.to_owned(), data.to_owned());
        let request = MirrorVolumeRequest { name, data, max_bytes, max_entries, ..Default::default() };
        call!(self, mirror_volume, LONG, request).map(drop)
    }

    pub async fn provide_memory(&self, request: ProvideMemoryRequest) -> Result<(), AgentError> {
        call!(self, provide_memory, SHORT, request).map(drop)
    }

    pub async fn release_volumes(&self, names: Vec<String>) -> Result<(), AgentError> {
        let request = ReleaseVolumesRequest { names, ..Default::default() };
        call!(self, release_volumes, LONG, request).map(drop)
    }

    pub async fn delete(&self, process: &ProcessRef) -> Result<(), AgentError> {
        let request = DeleteRequest {
            container_id: process.container.to_string(),
            exec_id: process.exec_text(),
            ..Default::default()
        };
        match call!(self, delete, LONG, request) {
            // Of a process that could not be started it knows nothing.
            Err(error) if error.code() == Code::NOT_FOUND => Ok(()),
            other => other.map(drop),
        }
    }

    pub async fn stats(&self, known: &[ContainerId], details: bool) -> Result<StatsResponse, AgentError> {
        let answer = call!(self, stats, SHORT, StatsRequest { details, ..Default::default() })?;
        Ok(check::stats(answer, known))
    }
}
