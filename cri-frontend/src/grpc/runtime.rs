//! RuntimeService. What is not here answers UNIMPLEMENTED.

use std::{collections::HashMap, path::Path, sync::Arc, time::Duration};

use a3s_box_proto::{config, cri};
use serde_json::json;
use tonic::{Request, Response, Status};
use tracing::info;

use super::convert::{container, sandbox, stats};
use crate::{
    clock::unix_nanos,
    container as containers,
    error::Error,
    node::{Node, health},
    sandbox as sandboxes, stats as figures, streaming,
};

type Answer<T> = Result<Response<T>, Status>;

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
        let condition = |name: &str, condition: &health::Condition| cri::RuntimeCondition {
            r#type: name.into(),
            status: condition.met,
            reason: condition.reason.into(),
            message: condition.message.clone(),
        };
        let conditions =
            vec![condition("RuntimeReady", &health.runtime), condition("NetworkReady", &health.network)];
        let info = if request.into_inner().verbose { self.info(&health).await? } else { HashMap::new() };
        let handlers = std::iter::once("").chain(self.0.config.cri.handlers.iter().map(String::as_str));
        answer(cri::StatusResponse {
            status: Some(cri::RuntimeStatus { conditions }),
            info,
            runtime_handlers: handlers
                .map(|name| cri::RuntimeHandler { name: name.into(), features: Some(Default::default()) })
                .collect(),
            features: Some(cri::RuntimeFeatures { supplemental_groups_policy: true, ..Default::default() }),
        })
    }

    async fn runtime_config(
        &self,
        _: Request<cri::RuntimeConfigRequest>,
    ) -> Answer<cri::RuntimeConfigResponse> {
        let systemd = match self.0.config.cri.cgroup_driver {
            config::CgroupDriver::Systemd => true,
            config::CgroupDriver::Cgroupfs => false,
            // As `sd_booted(3)` has it.
            config::CgroupDriver::Auto => Path::new("/run/systemd/system").is_dir(),
        };
        let driver = if systemd { cri::CgroupDriver::Systemd } else { cri::CgroupDriver::Cgroupfs };
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
        let filter = sandbox::filter(request.into_inner().filter.unwrap_or_default())?;
        let items =
            sandboxes::list::list(&self.0, &filter).iter().map(|found| sandbox::item(found)).collect();
        answer(cri::ListPodSandboxResponse { items })
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
        let filter = request.into_inner().filter.unwrap_or_default();
        let Some(filter) = container::filter(filter)? else {
            return answer(cri::ListContainersResponse::default());
        };
        let found = containers::list::list(&self.0, &filter);
        let containers = found.iter().map(|found| found.record.with(container::item)).collect();
        answer(cri::ListContainersResponse { containers })
    }

    async fn container_status(
        &self,
        request: Request<cri::ContainerStatusRequest>,
    ) -> Answer<cri::ContainerStatusResponse> {
        let request = request.into_inner();
        let found = self.0.containers.get(&request.container_id)?;
        answer(container::status(&found, request.verbose))
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
        let pod = figures::of_pod(&self.0, &found.pod(&self.0)?).await?;
        let sample = pod.containers.iter().find(|sample| sample.container.id == found.id);
        let sample = sample.ok_or_else(|| Error::State {
            what: "container",
            id: found.id.to_string(),
            problem: "is not running: it has no figures".into(),
        })?;
        answer(cri::ContainerStatsResponse { stats: Some(stats::container(&self.0, sample)) })
    }

    async fn list_container_stats(
        &self,
        request: Request<cri::ListContainerStatsRequest>,
    ) -> Answer<cri::ListContainerStatsResponse> {
        let filter = container::stats_filter(request.into_inner().filter.unwrap_or_default());
        let ready =
            sandboxes::list::Filter { id: filter.sandbox.clone(), ready: Some(true), ..Default::default() };
        let pods = figures::of_pods(&self.0, sandboxes::list::list(&self.0, &ready)).await;
        let samples = pods.iter().flat_map(|pod| &pod.containers);
        let admitted = samples.filter(|sample| sample.container.record.with(|record| filter.admits(record)));
        answer(cri::ListContainerStatsResponse {
            stats: admitted.map(|sample| stats::container(&self.0, sample)).collect(),
        })
    }

    async fn pod_sandbox_stats(
        &self,
        request: Request<cri::PodSandboxStatsRequest>,
    ) -> Answer<cri::PodSandboxStatsResponse> {
        let found = self.0.sandboxes.get(&request.into_inner().pod_sandbox_id)?;
        let sample = figures::of_pod(&self.0, &found).await?;
        answer(cri::PodSandboxStatsResponse { stats: Some(stats::pod(&self.0, &sample)) })
    }

    async fn list_pod_sandbox_stats(
        &self,
        request: Request<cri::ListPodSandboxStatsRequest>,
    ) -> Answer<cri::ListPodSandboxStatsResponse> {
        let filter = sandbox::stats_filter(request.into_inner().filter.unwrap_or_default());
        let pods = figures::of_pods(&self.0, sandboxes::list::list(&self.0, &filter)).await;
        answer(cri::ListPodSandboxStatsResponse {
            stats: pods.iter().map(|sample| stats::pod(&self.0, sample)).collect(),
        })
    }
}

impl Runtime {
    async fn info(&self, health: &health::Health) -> Result<HashMap<String, String>, Error> {
        let guest = health::manifest(&self.0).await?;
        let config = &self.0.config;
        let versions = json!({
            "frontend": env!("CARGO_PKG_VERSION"),
            "cri": "v1",
            "kernel": config.vm.kernel,
            "qemu": config.vm.qemu,
            "shim": config.cri.shim,
        });
        let accelerator =
            json!({ "configured": format!("{:?}", config.vm.accelerator), "used": health.accelerator });
        Ok(HashMap::from([
            ("guest".to_owned(), guest.to_string()),
            ("versions".to_owned(), versions.to_string()),
            ("accelerator".to_owned(), accelerator.to_string()),
            ("time".to_owned(), json!({ "unix_nanos": unix_nanos() }).to_string()),
        ]))
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
