//! Creates the pod: boots its MicroVM.

use std::sync::Arc;

use tracing::{error, info};

use super::{
    Phase, Pod,
    boot::{BootError, Environment, boot},
    resources::Resources,
    sandbox::Sandbox,
    size,
    spec::PodSpec,
};
use crate::{
    cgroup,
    error::{Error, Result, Step},
    sys::thread::blocking,
    vm::Accelerator,
};

impl Pod {
    /// Boots the VM. After an error nothing is held, and it may be asked again.
    ///
    /// # Errors
    /// The pod exists, its size is refused, or the boot failed.
    pub async fn create(self: &Arc<Self>, spec: PodSpec) -> Result<()> {
        let _lifecycle = self.lifecycle.lock().await;
        if !matches!(self.phase(), Phase::New) {
            return Err(self.wrong_phase("create"));
        }
        if self.stop.is_cancelled() {
            return Err(Error::Interrupted("creating the pod"));
        }
        self.enter(Phase::Booting);
        match self.boot(spec).await {
            Ok(sandbox) => {
                let sandbox = Arc::new(sandbox);
                self.enter(Phase::Created(sandbox.clone()));
                tokio::spawn(self.clone().watch(sandbox));
                Ok(())
            }
            Err(error) => {
                error!(%error, "the pod was not created");
                self.enter(Phase::New);
                Err(error)
            }
        }
    }

    async fn boot(&self, spec: PodSpec) -> Result<Sandbox> {
        let cgroup = cgroup::of_pod(&spec.cgroup_parent, &self.id)?;
        let parent = cgroup.clone();
        let host = blocking(move || cgroup::limits_above(&parent)).await;
        let host = host.step(|| "reading the limits of the pod's cgroup".into())?;
        let vm = self.config.vm.clone();
        let accelerator = blocking(move || Accelerator::choose(&vm)).await;
        let accelerator = accelerator.map_err(BootError::at("choosing the accelerator"))?;
        let size = size::of(&spec, host, accelerator, &self.config.vm)?;
        let environment = Environment {
            config: &self.config,
            pod: &self.id,
            layout: &self.layout,
            cgroup: &cgroup,
            accelerator,
            size,
            host: &self.host,
            cancel: &self.stop,
        };
        let mut resources = Resources::new(self.layout.clone());
        match boot(&environment, &spec, &mut resources).await {
            Ok(booted) => {
                info!(kernel = booted.kernel_release, "the guest is ready");
                let sandbox = Sandbox::new(self, spec, size, booted, resources)
                    .ok_or(Error::Interrupted("creating the pod"))?;
                sandbox.weigh_nothing().await;
                Ok(sandbox)
            }
            Err(error) => {
                resources.release(&self.origin).await;
                Err(error.into())
            }
        }
    }
}
