//! `containerd.runtime.sandbox.v1.Sandbox`: the pod as a whole.

use std::{sync::Arc, time::Duration};

use a3s_box_proto::cri::PodSandboxConfig;
use async_trait::async_trait;
use containerd_shim_protos::{
    sandbox_api::{
        CreateSandboxRequest, CreateSandboxResponse, PingRequest, PingResponse, PlatformRequest,
        PlatformResponse, SandboxMetricsRequest, SandboxMetricsResponse, SandboxStatusRequest,
        SandboxStatusResponse, ShutdownSandboxRequest, ShutdownSandboxResponse, StartSandboxRequest,
        StartSandboxResponse, StopSandboxRequest, StopSandboxResponse, WaitSandboxRequest,
        WaitSandboxResponse,
    },
    sandbox_async::Sandbox,
    types::platform::Platform,
};
use prost::Message;
use protobuf::MessageField;
use ttrpc::asynchronous::TtrpcContext;

use super::{metrics, timestamp, unbroken};
use crate::{
    error::{Error, Result},
    pod::{Phase, Pod, spec::PodSpec},
};

/// containerd's words for a sandbox's state.
const READY: &str = "SANDBOX_READY";
const NOT_READY: &str = "SANDBOX_NOTREADY";
/// The exit status of a VM that ended on its own.
const DIED: u32 = 255;

/// The service.
pub struct SandboxService(pub Arc<Pod>);

impl SandboxService {
    fn own(&self, id: &str) -> Result<()> {
        if id == self.0.id.as_str() { Ok(()) } else { Err(Error::NotFound(format!("sandbox {id}"))) }
    }

    fn spec(&self, request: &CreateSandboxRequest) -> Result<PodSpec> {
        let mut message = match request.options.as_ref() {
            None => PodSandboxConfig::default(),
            Some(any) if any.type_url.rsplit('/').next() == Some("runtime.v1.PodSandboxConfig") => {
                PodSandboxConfig::decode(any.value.as_slice())
                    .map_err(|error| Error::invalid("the sandbox's options", error.to_string()))?
            }
            Some(any) => {
                let reason = format!("type {:?}: runtime.v1.PodSandboxConfig is accepted", any.type_url);
                return Err(Error::invalid("the sandbox's options", reason));
            }
        };
        if !request.rootfs.is_empty() {
            return Err(Error::Unsupported("a root filesystem of the sandbox itself"));
        }
        message.annotations.extend(request.annotations.clone());
        PodSpec::from_cri(message, &request.netns_path, &self.0.config)
    }
}

#[async_trait]
impl Sandbox for SandboxService {
    async fn create_sandbox(
        &self,
        _: &TtrpcContext,
        request: CreateSandboxRequest,
    ) -> ttrpc::Result<CreateSandboxResponse> {
        self.own(&request.sandbox_id)?;
        let (pod, spec) = (self.0.clone(), self.spec(&request)?);
        unbroken(async move {
            pod.create(spec).await?;
            Ok(CreateSandboxResponse::new())
        })
        .await
    }

    async fn start_sandbox(
        &self,
        _: &TtrpcContext,
        request: StartSandboxRequest,
    ) -> ttrpc::Result<StartSandboxResponse> {
        self.own(&request.sandbox_id)?;
        let pod = self.0.clone();
        unbroken(async move {
            let sandbox = pod.start().await?;
            Ok(StartSandboxResponse {
                pid: sandbox.pid,
                created_at: timestamp(sandbox.created),
                ..StartSandboxResponse::default()
            })
        })
        .await
    }

    async fn platform(&self, _: &TtrpcContext, request: PlatformRequest) -> ttrpc::Result<PlatformResponse> {
        self.own(&request.sandbox_id)?;
        let platform = Platform { os: "linux".into(), architecture: "amd64".into(), ..Platform::default() };
        Ok(PlatformResponse { platform: MessageField::some(platform), ..PlatformResponse::default() })
    }

    async fn stop_sandbox(
        &self,
        _: &TtrpcContext,
        request: StopSandboxRequest,
    ) -> ttrpc::Result<StopSandboxResponse> {
        self.own(&request.sandbox_id)?;
        let pod = self.0.clone();
        let grace = Duration::from_secs(request.timeout_secs.into());
        unbroken(async move {
            pod.stop(grace).await?;
            Ok(StopSandboxResponse::new())
        })
        .await
    }

    async fn wait_sandbox(
        &self,
        _: &TtrpcContext,
        request: WaitSandboxRequest,
    ) -> ttrpc::Result<WaitSandboxResponse> {
        self.own(&request.sandbox_id)?;
        let ended = self.0.ended().await;
        Ok(WaitSandboxResponse {
            exit_status: if ended.message.is_empty() { 0 } else { DIED },
            exited_at: timestamp(ended.at),
            ..WaitSandboxResponse::default()
        })
    }

    async fn sandbox_status(
        &self,
        _: &TtrpcContext,
        request: SandboxStatusRequest,
    ) -> ttrpc::Result<SandboxStatusResponse> {
        self.own(&request.sandbox_id)?;
        let mut response = SandboxStatusResponse {
            sandbox_id: request.sandbox_id,
            state: NOT_READY.into(),
            ..SandboxStatusResponse::default()
        };
        let sandbox = match self.0.phase() {
            Phase::New | Phase::Booting => None,
            Phase::Created(sandbox) => Some(sandbox),
            Phase::Ready(sandbox) => {
                response.state = READY.into();
                Some(sandbox)
            }
            Phase::Stopped(ended) => {
                response.exited_at = timestamp(ended.at);
                response.info.insert("message".into(), ended.message.clone());
                ended.sandbox.clone()
            }
        };
        if let Some(sandbox) = sandbox {
            response.pid = sandbox.pid;
            response.created_at = timestamp(sandbox.created);
            response.info.extend([
                ("accelerator".into(), sandbox.booted.accelerator.into()),
                ("kernel".into(), sandbox.booted.kernel_release.clone()),
                ("vcpus".into(), sandbox.size.vcpus.to_string()),
                ("memoryMb".into(), sandbox.size.memory_mb.to_string()),
            ]);
        }
        Ok(response)
    }

    async fn ping_sandbox(&self, _: &TtrpcContext, request: PingRequest) -> ttrpc::Result<PingResponse> {
        self.own(&request.sandbox_id)?;
        Ok(PingResponse::new())
    }

    async fn shutdown_sandbox(
        &self,
        _: &TtrpcContext,
        request: ShutdownSandboxRequest,
    ) -> ttrpc::Result<ShutdownSandboxResponse> {
        self.own(&request.sandbox_id)?;
        let pod = self.0.clone();
        unbroken(async move {
            pod.shut_down().await?;
            Ok(ShutdownSandboxResponse::new())
        })
        .await
    }

    async fn sandbox_metrics(
        &self,
        _: &TtrpcContext,
        request: SandboxMetricsRequest,
    ) -> ttrpc::Result<SandboxMetricsResponse> {
        self.own(&request.sandbox_id)?;
        Ok(metrics::of_sandbox(&self.0).await?)
    }
}
