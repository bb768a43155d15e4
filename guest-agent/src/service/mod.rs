//! The agent's service: decode, call the domain, encode.

pub mod decode;
pub mod encode;
mod forward;
pub mod listener;
pub mod ready;
pub mod status;
pub mod streams;

use std::sync::Arc;

use a3s_box_proto::{agent, agent_ttrpc};
use async_trait::async_trait;
use ttrpc::asynchronous::TtrpcContext;

use self::{decode::Target, status::to_ttrpc};
use crate::{
    clock::Clock,
    container::Containers,
    error::{For, Object, blocking},
    sandbox::Sandbox,
    volume::Volumes,
};

type Answer<T> = ttrpc::Result<T>;

/// What the calls work on.
#[derive(Debug, Clone)]
pub struct Agent {
    /// The pod's containers.
    pub containers: Arc<Containers>,
    /// The pod as a whole.
    pub sandbox: Arc<Sandbox>,
    /// The pod's volumes.
    pub volumes: Arc<Volumes>,
    /// The guest's.
    pub clock: Arc<Clock>,
}

/// Does a call's work whether or not its caller stays: a channel that breaks in the middle must not leave half a
/// container behind.
async fn to_the_end<T: Send + 'static>(
    work: impl Future<Output = Result<T, crate::error::Error>> + Send + 'static,
) -> Answer<T> {
    match tokio::spawn(work).await {
        Ok(outcome) => outcome.map_err(|error| to_ttrpc(&error)),
        Err(error) => Err(status::internal(&format!("the call's task ended: {error}"))),
    }
}

#[async_trait]
impl agent_ttrpc::Agent for Agent {
    async fn configure_sandbox(
        &self,
        _: &TtrpcContext,
        request: agent::ConfigureSandboxRequest,
    ) -> Answer<agent::ConfigureSandboxResponse> {
        let (sandbox, containers) = (Arc::clone(&self.sandbox), Arc::clone(&self.containers));
        to_the_end(async move {
            sandbox.configure(decode::sandbox(request)?).await?;
            containers.get_storage_ready();
            Ok(agent::ConfigureSandboxResponse::new())
        })
        .await
    }

    async fn set_clock(
        &self,
        _: &TtrpcContext,
        request: agent::SetClockRequest,
    ) -> Answer<agent::SetClockResponse> {
        self.clock.follow(request.unix_nanos).of(|| Object::Sandbox).map_err(|error| to_ttrpc(&error))?;
        Ok(agent::SetClockResponse::new())
    }

    async fn shutdown(
        &self,
        _: &TtrpcContext,
        request: agent::ShutdownRequest,
    ) -> Answer<agent::ShutdownResponse> {
        let (sandbox, containers) = (Arc::clone(&self.sandbox), Arc::clone(&self.containers));
        let grace = std::time::Duration::from_millis(u64::from(request.grace_ms));
        to_the_end(async move {
            sandbox.shut_down(&containers, grace).await;
            Ok(agent::ShutdownResponse::new())
        })
        .await
    }

    async fn create_container(
        &self,
        _: &TtrpcContext,
        request: agent::CreateContainerRequest,
    ) -> Answer<agent::CreateContainerResponse> {
        let containers = Arc::clone(&self.containers);
        to_the_end(async move {
            let user = containers.create(decode::create(request)?).await?;
            Ok(encode::created(user))
        })
        .await
    }

    async fn start_container(
        &self,
        _: &TtrpcContext,
        request: agent::StartContainerRequest,
    ) -> Answer<agent::StartContainerResponse> {
        let containers = Arc::clone(&self.containers);
        to_the_end(async move {
            let container = containers.get(&decode::container_id(request.container_id)?)?;
            let pid = containers.start(&container).await?;
            Ok(agent::StartContainerResponse { pid: pid.cast_unsigned(), ..Default::default() })
        })
        .await
    }

    async fn exec(&self, _: &TtrpcContext, request: agent::ExecRequest) -> Answer<agent::ExecResponse> {
        let containers = Arc::clone(&self.containers);
        to_the_end(async move {
            let (id, wanted) = decode::exec(request)?;
            let pid = containers.exec(&containers.get(&id)?, &wanted).await?;
            Ok(agent::ExecResponse { pid: pid.cast_unsigned(), ..Default::default() })
        })
        .await
    }

    async fn signal(&self, _: &TtrpcContext, request: agent::SignalRequest) -> Answer<agent::SignalResponse> {
        let send = || {
            let signal = decode::signal(request.signal)?;
            let target = Target::parse(request.container_id, request.exec_id)?;
            if request.all {
                return self.containers.get(&target.container)?.signal_all(signal);
            }
            self.containers.signal(&target.container, target.exec.as_ref(), signal)
        };
        send().map_err(|error| to_ttrpc(&error))?;
        Ok(agent::SignalResponse::new())
    }

    async fn wait(&self, _: &TtrpcContext, request: agent::WaitRequest) -> Answer<agent::WaitResponse> {
        let wait = async {
            let target = Target::parse(request.container_id, request.exec_id)?;
            self.containers.wait(&target.container, target.exec.as_ref()).await
        };
        wait.await.map(encode::ended).map_err(|error| to_ttrpc(&error))
    }

    async fn resize_pty(
        &self,
        _: &TtrpcContext,
        request: agent::ResizePtyRequest,
    ) -> Answer<agent::ResizePtyResponse> {
        let resize = || {
            let size = decode::size(request.width, request.height)?;
            let target = Target::parse(request.container_id, request.exec_id)?;
            self.containers.resize(&target.container, target.exec.as_ref(), size)
        };
        resize().map_err(|error| to_ttrpc(&error))?;
        Ok(agent::ResizePtyResponse::new())
    }

    async fn hang_up(
        &self,
        _: &TtrpcContext,
        request: agent::HangUpRequest,
    ) -> Answer<agent::HangUpResponse> {
        let hang_up = || {
            let target = Target::parse(request.container_id, request.exec_id)?;
            self.containers.hang_up(&target.container, target.exec.as_ref())
        };
        hang_up().map_err(|error| to_ttrpc(&error))?;
        Ok(agent::HangUpResponse::new())
    }

    async fn update_resources(
        &self,
        _: &TtrpcContext,
        request: agent::UpdateResourcesRequest,
    ) -> Answer<agent::UpdateResourcesResponse> {
        let containers = Arc::clone(&self.containers);
        to_the_end(async move {
            let container = containers.get(&decode::container_id(request.container_id)?)?;
            container.update(&request.resources).await?;
            Ok(agent::UpdateResourcesResponse::new())
        })
        .await
    }

    async fn release_container(
        &self,
        _: &TtrpcContext,
        request: agent::ReleaseContainerRequest,
    ) -> Answer<agent::ReleaseContainerResponse> {
        let containers = Arc::clone(&self.containers);
        to_the_end(async move {
            let container = containers.get(&decode::container_id(request.container_id)?)?;
            containers.release(&container).await?;
            Ok(agent::ReleaseContainerResponse::new())
        })
        .await
    }

    async fn mirror_volume(
        &self,
        _: &TtrpcContext,
        request: agent::MirrorVolumeRequest,
    ) -> Answer<agent::MirrorVolumeResponse> {
        let volumes = Arc::clone(&self.volumes);
        to_the_end(async move {
            let wanted = decode::mirror(request)?;
            blocking(move || volumes.mirrors.replay(&wanted)).await.of(|| Object::Sandbox)?;
            Ok(agent::MirrorVolumeResponse::new())
        })
        .await
    }

    async fn provide_memory(
        &self,
        _: &TtrpcContext,
        request: agent::ProvideMemoryRequest,
    ) -> Answer<agent::ProvideMemoryResponse> {
        let volumes = Arc::clone(&self.volumes);
        to_the_end(async move {
            let wanted = decode::memory(request)?;
            blocking(move || volumes.memories.provide(&wanted)).await.of(|| Object::Sandbox)?;
            Ok(agent::ProvideMemoryResponse::new())
        })
        .await
    }

    async fn release_volumes(
        &self,
        _: &TtrpcContext,
        request: agent::ReleaseVolumesRequest,
    ) -> Answer<agent::ReleaseVolumesResponse> {
        let volumes = Arc::clone(&self.volumes);
        to_the_end(async move {
            let names = request.names.into_iter().map(decode::volume).collect::<Result<Vec<_>, _>>()?;
            blocking(move || volumes.release(&names)).await.of(|| Object::Sandbox)?;
            Ok(agent::ReleaseVolumesResponse::new())
        })
        .await
    }

    async fn delete(&self, _: &TtrpcContext, request: agent::DeleteRequest) -> Answer<agent::DeleteResponse> {
        let containers = Arc::clone(&self.containers);
        to_the_end(async move {
            let target = Target::parse(request.container_id, request.exec_id)?;
            match &target.exec {
                Some(exec) => containers.delete_exec(&target.container, exec)?,
                None => containers.delete(&target.container).await?,
            }
            Ok(agent::DeleteResponse::new())
        })
        .await
    }

    async fn stats(&self, _: &TtrpcContext, request: agent::StatsRequest) -> Answer<agent::StatsResponse> {
        let figures = self.containers.stats(request.details).await.of(|| Object::Sandbox);
        figures.map(encode::stats).map_err(|error| to_ttrpc(&error))
    }
}
