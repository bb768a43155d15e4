//! RuntimeService. What is not here answers UNIMPLEMENTED.

use std::{collections::HashMap, sync::Arc, time::Duration};

use a3s_box_proto::cri;
use futures::{StreamExt, stream};
use tonic::{Request, Response, Status, codegen::BoxStream};
use tracing::info;

use super::{
    convert::{container, event, metrics, node, sandbox, stats},
    pages::pages,
};
use crate::{
    container as containers,
    error::Error,
    node::{Node, health},
    sandbox as sandboxes,
    stats::{self as figures, Depth},
    streaming,
};

type Answer<T> = Result<Response<T>, Status>;
type Stream<T> = Answer<BoxStream<T>>;

/// The service.
#[derive(Debug)]
pub struct Runtime(pub Arc<Node>);

#[tonic::async_trait]
impl cri::runtime_service_server::RuntimeService for Runtime {
    async fn version(&self, _: Request<cri::VersionRequest>) -> Answer<cri::VersionResponse> {
        answer(cri::VersionResponse {
            version: "0.1.0".into(),
            runtime_name: "a3s-box".into(),
            runtime_version: env!("CARGO_PKG_VERSION").into(),
            runtime_api_version: "v1".into(),
        })
    }

    async fn status(&self, request: Request<cri::StatusRequest>) -> Answer<cri::StatusResponse> {
        let health = health::check(&self.0).await?;
        let info = if request.into_inner().verbose {
            node::info(&self.0, &health, &health::manifest(&self.0).await?)
        } else {
            HashMap::new()
        };
        answer(cri::StatusResponse {
            status: Some(node::status(&health)),
            info,
            runtime_handlers: node::handlers(&self.0),
            features: Some(node::features()),
        })
    }

    async fn runtime_config(
        &self,
        _: Request<cri::RuntimeConfigRequest>,
    ) -> Answer<cri::RuntimeConfigResponse> {
        let by_systemd = self.0.has_cgroups_of_systemd();
        let driver = if by_systemd { cri::CgroupDriver::Systemd } else { cri::CgroupDriver::Cgroupfs };
        let linux = cri::LinuxRuntimeConfiguration { cgroup_driver: driver.into() };
        answer(cri::RuntimeConfigResponse { linux: Some(linux) })
    }

    async fn update_runtime_config(
        &self,
        request: Request<cri::UpdateRuntimeConfigRequest>,
    ) -> Answer<cri::UpdateRuntimeConfigResponse> {
        // The pods' addresses are the CNI configuration's business.
        let config = request.into_inner().runtime_config.and_then(|config| config.network_config);
        info!(pod_cidr = config.unwrap_or_default().pod_cidr, "the runtime's configuration was announced");
        answer(cri::UpdateRuntimeConfigResponse {})
    }

    async fn run_pod_sandbox(
        &self,
        request: Request<cri::RunPodSandboxRequest>,
    ) -> Answer<cri::RunPodSandboxResponse> {
        let request = request.into_inner();
        let config = request.config.ok_or_else(|| missing("config"))?;
        let pod_sandbox_id = sandboxes::run::run(&self.0, config, request.runtime_handler).await?;
        answer(cri::RunPodSandboxResponse { pod_sandbox_id })
    }

    async fn stop_pod_sandbox(
        &self,
        request: Request<cri::StopPodSandboxRequest>,
    ) -> Answer<cri::StopPodSandboxResponse> {
        sandboxes::stop::stop(&self.0, &request.into_inner().pod_sandbox_id).await?;
        answer(cri::StopPodSandboxResponse {})
    }

    async fn remove_pod_sandbox(
        &self,
        request: Request<cri::RemovePodSandboxRequest>,
    ) -> Answer<cri::RemovePodSandboxResponse> {
        sandboxes::remove::remove(&self.0, &request.into_inner().pod_sandbox_id).await?;
        answer(cri::RemovePodSandboxResponse {})
    }

    async fn update_pod_sandbox_resources(
        &self,
        request: Request<cri::UpdatePodSandboxResourcesRequest>,
    ) -> Answer<cri::UpdatePodSandboxResourcesResponse> {
        let cri::UpdatePodSandboxResourcesRequest { pod_sandbox_id, overhead, resources } =
            request.into_inner();
        sandboxes::update::update(&self.0, &pod_sandbox_id, resources, overhead).await?;
        answer(cri::UpdatePodSandboxResourcesResponse {})
    }

    async fn pod_sandbox_status(
        &self,
        request: Request<cri::PodSandboxStatusRequest>,
    ) -> Answer<cri::PodSandboxStatusResponse> {
        let request = request.into_inner();
        let found = self.0.sandboxes.get(&request.pod_sandbox_id)?;
        answer(sandbox::status(&self.0, &found, request.verbose))
    }

    async fn list_pod_sandbox(
        &self,
        request: Request<cri::ListPodSandboxRequest>,
    ) -> Answer<cri::ListPodSandboxResponse> {
        answer(cri::ListPodSandboxResponse { items: self.list_sandboxes(request.into_inner().filter)? })
    }

    async fn stream_pod_sandboxes(
        &self,
        request: Request<cri::StreamPodSandboxesRequest>,
    ) -> Stream<cri::StreamPodSandboxesResponse> {
        let listed = self.list_sandboxes(request.into_inner().filter)?;
        answer(pages(listed, |pod_sandboxes| cri::StreamPodSandboxesResponse { pod_sandboxes }))
    }

    async fn create_container(
        &self,
        request: Request<cri::CreateContainerRequest>,
    ) -> Answer<cri::CreateContainerResponse> {
        let request = request.into_inner();
        let config = request.config.ok_or_else(|| missing("config"))?;
        let container_id = containers::create::create(&self.0, &request.pod_sandbox_id, config).await?;
        answer(cri::CreateContainerResponse { container_id })
    }

    async fn start_container(
        &self,
        request: Request<cri::StartContainerRequest>,
    ) -> Answer<cri::StartContainerResponse> {
        containers::start::start(&self.0, &request.into_inner().container_id).await?;
        answer(cri::StartContainerResponse {})
    }

    async fn stop_container(
        &self,
        request: Request<cri::StopContainerRequest>,
    ) -> Answer<cri::StopContainerResponse> {
        let request = request.into_inner();
        let grace = seconds(request.timeout).unwrap_or_default();
        containers::stop::stop(&self.0, &request.container_id, grace).await?;
        answer(cri::StopContainerResponse {})
    }

    async fn remove_container(
        &self,
        request: Request<cri::RemoveContainerRequest>,
    ) -> Answer<cri::RemoveContainerResponse> {
        containers::remove::remove(&self.0, &request.into_inner().container_id).await?;
        answer(cri::RemoveContainerResponse {})
    }

    async fn list_containers(
        &self,
        request: Request<cri::ListContainersRequest>,
    ) -> Answer<cri::ListContainersResponse> {
        answer(cri::ListContainersResponse { containers: self.containers(request.into_inner().filter)? })
    }

    async fn stream_containers(
        &self,
        request: Request<cri::StreamContainersRequest>,
    ) -> Stream<cri::StreamContainersResponse> {
        let listed = self.containers(request.into_inner().filter)?;
        answer(pages(listed, |containers| cri::StreamContainersResponse { containers }))
    }

    async fn container_status(
        &self,
        request: Request<cri::ContainerStatusRequest>,
    ) -> Answer<cri::ContainerStatusResponse> {
        let request = request.into_inner();
        let found = self.0.containers.get(&request.container_id)?;
        let status = found.record.with(container::of_record);
        let info = if request.verbose { container::info(&self.0, &found).await? } else { HashMap::new() };
        answer(cri::ContainerStatusResponse { status: Some(status), info })
    }

    async fn update_container_resources(
        &self,
        request: Request<cri::UpdateContainerResourcesRequest>,
    ) -> Answer<cri::UpdateContainerResourcesResponse> {
        let request = request.into_inner();
        let resources = request.linux.ok_or_else(|| missing("linux"))?;
        containers::update::update(&self.0, &request.container_id, resources).await?;
        answer(cri::UpdateContainerResourcesResponse {})
    }

    async fn reopen_container_log(
        &self,
        request: Request<cri::ReopenContainerLogRequest>,
    ) -> Answer<cri::ReopenContainerLogResponse> {
        containers::reopen_log::reopen_log(&self.0, &request.into_inner().container_id).await?;
        answer(cri::ReopenContainerLogResponse {})
    }

    async fn exec_sync(&self, request: Request<cri::ExecSyncRequest>) -> Answer<cri::ExecSyncResponse> {
        let request = request.into_inner();
        let limit = seconds(request.timeout).filter(|limit| !limit.is_zero());
        let outcome =
            containers::exec_sync::exec_sync(&self.0, &request.container_id, request.cmd, limit).await?;
        answer(cri::ExecSyncResponse {
            stdout: outcome.stdout,
            stderr: outcome.stderr,
            exit_code: outcome.exit_code,
        })
    }

    async fn exec(&self, request: Request<cri::ExecRequest>) -> Answer<cri::ExecResponse> {
        let wanted = streaming::exec_request(&self.0, request.into_inner())?;
        answer(cri::ExecResponse { url: self.0.streaming.url(wanted)? })
    }

    async fn attach(&self, request: Request<cri::AttachRequest>) -> Answer<cri::AttachResponse> {
        let wanted = streaming::attach_request(&self.0, &request.into_inner())?;
        answer(cri::AttachResponse { url: self.0.streaming.url(wanted)? })
    }

    async fn port_forward(
        &self,
        request: Request<cri::PortForwardRequest>,
    ) -> Answer<cri::PortForwardResponse> {
        let wanted = streaming::port_forward_request(&self.0, request.into_inner())?;
        answer(cri::PortForwardResponse { url: self.0.streaming.url(wanted)? })
    }

    async fn container_stats(
        &self,
        request: Request<cri::ContainerStatsRequest>,
    ) -> Answer<cri::ContainerStatsResponse> {
        let found = self.0.containers.get(&request.into_inner().container_id)?;
        let sample = figures::of_container(&self.0, &found).await?;
        answer(cri::ContainerStatsResponse { stats: Some(stats::container(&self.0, &sample)) })
    }

    async fn list_container_stats(
        &self,
        request: Request<cri::ListContainerStatsRequest>,
    ) -> Answer<cri::ListContainerStatsResponse> {
        answer(cri::ListContainerStatsResponse {
            stats: self.figures_of_containers(request.into_inner().filter).await,
        })
    }

    async fn stream_container_stats(
        &self,
        request: Request<cri::StreamContainerStatsRequest>,
    ) -> Stream<cri::StreamContainerStatsResponse> {
        let listed = self.figures_of_containers(request.into_inner().filter).await;
        answer(pages(listed, |container_stats| cri::StreamContainerStatsResponse { container_stats }))
    }

    async fn pod_sandbox_stats(
        &self,
        request: Request<cri::PodSandboxStatsRequest>,
    ) -> Answer<cri::PodSandboxStatsResponse> {
        let found = self.0.sandboxes.get(&request.into_inner().pod_sandbox_id)?;
        let sample = figures::of_pod(&self.0, &found, Depth::Counters).await?;
        answer(cri::PodSandboxStatsResponse { stats: Some(stats::pod(&self.0, &sample)) })
    }

    async fn list_pod_sandbox_stats(
        &self,
        request: Request<cri::ListPodSandboxStatsRequest>,
    ) -> Answer<cri::ListPodSandboxStatsResponse> {
        answer(cri::ListPodSandboxStatsResponse {
            stats: self.figures_of_pods(request.into_inner().filter).await,
        })
    }

    async fn stream_pod_sandbox_stats(
        &self,
        request: Request<cri::StreamPodSandboxStatsRequest>,
    ) -> Stream<cri::StreamPodSandboxStatsResponse> {
        let listed = self.figures_of_pods(request.into_inner().filter).await;
        answer(pages(listed, |pod_sandbox_stats| cri::StreamPodSandboxStatsResponse { pod_sandbox_stats }))
    }

    async fn list_metric_descriptors(
        &self,
        _: Request<cri::ListMetricDescriptorsRequest>,
    ) -> Answer<cri::ListMetricDescriptorsResponse> {
        answer(cri::ListMetricDescriptorsResponse { descriptors: metrics::descriptors() })
    }

    async fn list_pod_sandbox_metrics(
        &self,
        _: Request<cri::ListPodSandboxMetricsRequest>,
    ) -> Answer<cri::ListPodSandboxMetricsResponse> {
        answer(cri::ListPodSandboxMetricsResponse { pod_metrics: self.metrics_of_pods().await })
    }

    async fn stream_pod_sandbox_metrics(
        &self,
        _: Request<cri::StreamPodSandboxMetricsRequest>,
    ) -> Stream<cri::StreamPodSandboxMetricsResponse> {
        let page = |pod_sandbox_metrics| cri::StreamPodSandboxMetricsResponse { pod_sandbox_metrics };
        answer(pages(self.metrics_of_pods().await, page))
    }

    async fn get_container_events(
        &self,
        _: Request<cri::GetEventsRequest>,
    ) -> Stream<cri::ContainerEventResponse> {
        let events = stream::unfold(self.0.events.subscribe(), |mut subscription| async {
            let event = match subscription.next().await? {
                Ok(happened) => Ok(event::event(&happened)),
                Err(behind) => Err(Error::from(behind).into()),
            };
            Some((event, subscription))
        });
        answer(Box::pin(events.take_until(self.0.shutdown.clone().cancelled_owned())))
    }
}

impl Runtime {
    fn list_sandboxes(&self, filter: Option<cri::PodSandboxFilter>) -> Result<Vec<cri::PodSandbox>, Error> {
        let filter = sandbox::filter(filter.unwrap_or_default())?;
        Ok(sandboxes::list::list(&self.0, &filter).iter().map(|found| sandbox::item(found)).collect())
    }

    fn containers(&self, filter: Option<cri::ContainerFilter>) -> Result<Vec<cri::Container>, Error> {
        let Some(filter) = container::filter(filter.unwrap_or_default())? else { return Ok(Vec::new()) };
        let found = containers::list::list(&self.0, &filter);
        Ok(found.iter().map(|found| found.record.with(container::item)).collect())
    }

    async fn figures_of_containers(
        &self,
        filter: Option<cri::ContainerStatsFilter>,
    ) -> Vec<cri::ContainerStats> {
        let filter = container::stats_filter(filter.unwrap_or_default());
        let samples = figures::of_containers(&self.0, &filter).await;
        samples.iter().map(|sample| stats::container(&self.0, sample)).collect()
    }

    async fn figures_of_pods(&self, filter: Option<cri::PodSandboxStatsFilter>) -> Vec<cri::PodSandboxStats> {
        let filter = sandbox::stats_filter(filter.unwrap_or_default());
        let samples = figures::of_pods(&self.0, &filter, Depth::Counters).await;
        samples.iter().map(|sample| stats::pod(&self.0, sample)).collect()
    }

    async fn metrics_of_pods(&self) -> Vec<cri::PodSandboxMetrics> {
        let ready = sandboxes::list::Filter { ready: Some(true), ..Default::default() };
        let samples = figures::of_pods(&self.0, &ready, Depth::Details).await;
        samples.iter().map(metrics::pod).collect()
    }
}

fn answer<T>(message: T) -> Answer<T> {
    Ok(Response::new(message))
}

fn missing(field: &str) -> Error {
    Error::Invalid(format!("the request's {field} is missing"))
}

/// Negative times are none.
fn seconds(count: i64) -> Option<Duration> {
    u64::try_from(count).ok().map(Duration::from_secs)
}
