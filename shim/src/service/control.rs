//! `a3s.box.shim.v1.Control`: the truth about the pod, from memory.

use std::sync::Arc;

use a3s_box_proto::{
    shim::{
        AbandonExecsRequest, AbandonExecsResponse, AttachRequest, AttachResponse,
        Container as ContainerMessage, ContainerStatus, Exit as ExitMessage, HangUpRequest, HangUpResponse,
        PortForwardRequest, PortForwardResponse, ReopenLogRequest, ReopenLogResponse, SandboxState,
        StateRequest, StateResponse, StatsRequest, StatsResponse,
    },
    shim_ttrpc::Control,
    stdio::Endpoint,
};
use async_trait::async_trait;
use protobuf::{Message, MessageField};
use ttrpc::asynchronous::TtrpcContext;

use super::unbroken;
use crate::{
    error::{Error, Step},
    io::Stdio,
    pod::{
        Phase, Pod,
        container::Container,
        exit::{Exit, unix_nanos},
        process::State,
        sandbox::Sandbox,
    },
    sys::thread::blocking,
};

/// The service.
pub struct ControlService(pub Arc<Pod>);

#[async_trait]
impl Control for ControlService {
    async fn state(&self, _: &TtrpcContext, _: StateRequest) -> ttrpc::Result<StateResponse> {
        let (state, sandbox, message) = match self.0.phase() {
            Phase::New | Phase::Booting => (SandboxState::SANDBOX_CREATED, None, String::new()),
            Phase::Created(sandbox) => (SandboxState::SANDBOX_CREATED, Some(sandbox), String::new()),
            Phase::Ready(sandbox) => (SandboxState::SANDBOX_READY, Some(sandbox), String::new()),
            Phase::Stopped(ended) => {
                (SandboxState::SANDBOX_STOPPED, ended.sandbox.clone(), ended.message.clone())
            }
        };
        let mut response = StateResponse {
            state: state.into(),
            message,
            containers: self.0.containers().iter().map(|container| describe(container)).collect(),
            ..StateResponse::default()
        };
        if let Some(sandbox) = sandbox {
            describe_vm(&sandbox, &mut response);
        }
        Ok(response)
    }

    async fn reopen_log(
        &self,
        _: &TtrpcContext,
        request: ReopenLogRequest,
    ) -> ttrpc::Result<ReopenLogResponse> {
        let container = self.0.container(&request.container_id, "reopen its log")?;
        let log = container.log.clone().ok_or_else(|| {
            Error::invalid(format!("container {}", container.id), "its output goes to no log file")
        })?;
        unbroken(async move {
            log.reopen().await.step(|| format!("reopening {}", log.path().display()))?;
            Ok(ReopenLogResponse::default())
        })
        .await
    }

    async fn stats(&self, _: &TtrpcContext, request: StatsRequest) -> ttrpc::Result<StatsResponse> {
        let sandbox = self.0.ready("measure it")?;
        let known: Vec<_> = self.0.containers().iter().map(|container| container.id.clone()).collect();
        let cgroup = sandbox.cgroup.clone();
        let (stats, usage) =
            tokio::join!(sandbox.agent.stats(&known, request.details), blocking(move || Ok(cgroup.usage())));
        let stats = stats.map_err(Error::from)?;
        let usage = usage.step(|| "reading the pod's cgroup".into())?;
        let agent_stats = stats
            .write_to_bytes()
            .map_err(std::io::Error::other)
            .step(|| "encoding the guest's figures".into())?;
        Ok(StatsResponse {
            agent_stats,
            host_cpu_usage_usec: usage.cpu_usec,
            host_memory_bytes: usage.memory_bytes,
            ..StatsResponse::default()
        })
    }

    async fn attach(&self, _: &TtrpcContext, request: AttachRequest) -> ttrpc::Result<AttachResponse> {
        let container = self.0.container(&request.container_id, "attach to it")?;
        let streams =
            Stdio::parse(&request.stdin, &request.stdout, &request.stderr, container.process.stdio.terminal)
                .map_err(Error::from)?;
        container.attach(&self.0, &streams).await?;
        Ok(AttachResponse::new())
    }

    async fn port_forward(
        &self,
        _: &TtrpcContext,
        request: PortForwardRequest,
    ) -> ttrpc::Result<PortForwardResponse> {
        let socket: Endpoint = request.socket.parse().map_err(Error::from)?;
        self.0.forward(request.port, &socket).await?;
        Ok(PortForwardResponse::new())
    }

    async fn hang_up(&self, _: &TtrpcContext, request: HangUpRequest) -> ttrpc::Result<HangUpResponse> {
        let exec = self.0.container(&request.container_id, "hang up")?.exec(&request.exec_id)?;
        self.0.hang_up(&exec).await?;
        Ok(HangUpResponse::new())
    }

    async fn abandon_execs(
        &self,
        _: &TtrpcContext,
        _: AbandonExecsRequest,
    ) -> ttrpc::Result<AbandonExecsResponse> {
        self.0.abandon_execs();
        Ok(AbandonExecsResponse::new())
    }
}

fn describe_vm(sandbox: &Sandbox, response: &mut StateResponse) {
    response.accelerator = sandbox.booted.accelerator.into();
    response.kernel_release.clone_from(&sandbox.booted.kernel_release);
    response.agent_version.clone_from(&sandbox.booted.agent_version);
    response.vcpus = sandbox.size.vcpus;
    response.memory_bytes = sandbox.size.memory_mb << 20;
    response.vmm_pid = sandbox.pid;
}

fn describe(container: &Container) -> ContainerMessage {
    let state = container.process.state();
    let status = match &state {
        State::Created | State::Starting => ContainerStatus::CONTAINER_CREATED,
        State::Running(_) => ContainerStatus::CONTAINER_RUNNING,
        State::Exited(..) => ContainerStatus::CONTAINER_EXITED,
    };
    ContainerMessage {
        id: container.id.to_string(),
        status: status.into(),
        created_at_unix_nanos: unix_nanos(container.created),
        started_at_unix_nanos: state.started().map(unix_nanos).unwrap_or_default(),
        exit: match state {
            State::Exited(_, exit) => MessageField::some(describe_exit(exit)),
            _ => MessageField::none(),
        },
        uid: container.user.uid,
        gid: container.user.gid,
        supplemental_groups: container.user.supplemental_groups.clone(),
        ..ContainerMessage::default()
    }
}

fn describe_exit(exit: Exit) -> ExitMessage {
    ExitMessage {
        code: exit.code,
        exited_at_unix_nanos: unix_nanos(exit.at),
        reason: exit.reason.into(),
        message: exit.message,
        ..ExitMessage::default()
    }
}
