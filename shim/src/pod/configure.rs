//! Starts the pod: after CNI, its network and its names go into the guest.

use std::sync::Arc;

use a3s_box_proto::agent::ConfigureSandboxRequest;
use tracing::info;

use super::{Phase, Pod, dns, sandbox::Sandbox};
use crate::{
    error::{Error, Result, Step},
    network::{self, PodNetwork, Requests},
    sys::namespace,
};

/// containerd's size of a pod's /dev/shm.
const SHM_BYTES: u64 = 64 << 20;

impl Pod {
    /// Configures the guest. Asked again, it says so again.
    ///
    /// # Errors
    /// The pod is not there, its network cannot be read or tied, or the agent refuses.
    pub async fn start(self: &Arc<Self>) -> Result<Arc<Sandbox>> {
        let _lifecycle = self.lifecycle.lock().await;
        let sandbox = match self.phase() {
            Phase::Ready(sandbox) => return Ok(sandbox),
            Phase::Created(sandbox) => sandbox,
            Phase::New | Phase::Booting | Phase::Stopped(_) => return Err(self.wrong_phase("start")),
        };
        let configured = tokio::select! {
            configured = self.configure(&sandbox) => configured,
            () = self.stop.cancelled() => Err(Error::Interrupted("starting the pod")),
        };
        configured?;
        if sandbox.caller.is_containerd() {
            self.serve_loopback(&sandbox).await;
        }
        self.enter_ready(&sandbox)?;
        info!("the pod is ready");
        Ok(sandbox)
    }

    async fn configure(&self, sandbox: &Sandbox) -> Result<()> {
        // The guest has its first call to answer while the host's side of the network is read.
        let (clock, configured) = tokio::join!(sandbox.agent.set_clock(), self.configure_guest(sandbox));
        configured?;
        Ok(clock?)
    }

    async fn configure_guest(&self, sandbox: &Sandbox) -> Result<()> {
        let network = self.network(sandbox).await.step(|| "reading the pod's network namespace".into())?;
        let names = sandbox.spec.dns.clone();
        let resolv_conf = self.host.run(move || names.resolv_conf()).await;
        let resolv_conf = resolv_conf.step(|| "reading the host's resolv.conf".into())?;
        let requests = Requests::new(&network, &sandbox.booted.network_devices);
        let requests = requests.step(|| "telling the guest of its network".into())?;
        let ips = network.interfaces.first().into_iter().flat_map(network::Interface::ips);
        let request = ConfigureSandboxRequest {
            hostname: sandbox.spec.hostname.clone(),
            resolv_conf,
            hosts: dns::hosts(&sandbox.spec.hostname, ips),
            sysctls: sandbox.spec.sysctls.clone().into_iter().collect(),
            spare_devices: requests.spare,
            identify: requests.identify,
            settle: requests.settle,
            network_sysctls: network.sysctls,
            shm_bytes: SHM_BYTES,
            ..ConfigureSandboxRequest::default()
        };
        Ok(sandbox.agent.configure_sandbox(request).await?)
    }

    async fn network(&self, sandbox: &Sandbox) -> std::io::Result<PodNetwork> {
        let booted = &sandbox.booted;
        let (Some(path), Some(baseline)) = (&sandbox.spec.netns, &booted.baseline) else {
            return Ok(PodNetwork::default());
        };
        let netns = namespace::open(&self.host, path).await?;
        // Read first: what has too many interfaces cannot be tied.
        let read = network::read(netns.try_clone()?, booted.network_devices.len(), baseline.clone()).await?;
        network::tie(netns).await?;
        Ok(read)
    }
}
