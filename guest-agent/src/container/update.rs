//! Changing the limits of a container that runs.

use std::sync::Arc;

use a3s_box_proto::ids::ContainerId;
use libcgroups::common::{CgroupConfig, CgroupManager, ControllerOpt, create_cgroup_manager};
use oci_spec::runtime::LinuxResources;

use super::{Container, limits};
use crate::error::{Error, Failed, For, blocking};

impl Container {
    /// Sets limits of the running container.
    pub async fn update(self: &Arc<Self>, resources: &[u8]) -> Result<(), Error> {
        let mut resources: LinuxResources =
            serde_json::from_slice(resources).map_err(|error| Error::invalid("resources", error))?;
        limits::adapt(&mut resources)?;
        // libcgroups replaces the device filter with each change: without rules by one that allows nearly nothing.
        let own = self.spec.linux().as_ref().and_then(|linux| linux.resources().as_ref());
        resources.set_devices(own.and_then(|own| own.devices().clone()));
        let (id, object) = (self.id.clone(), self.object());
        let work = move || {
            let applied = apply(&id, &resources).of(|| object);
            Ok(applied.map_err(|error| limits::refused(&id, &resources).unwrap_or(error)))
        };
        blocking(work).await.of(|| self.object())?
    }
}

fn apply(id: &ContainerId, resources: &LinuxResources) -> Result<(), Failed> {
    let failed =
        |error: &dyn std::fmt::Display| Failed::because("set the cgroup's limits", error.to_string());
    let config = CgroupConfig {
        cgroup_path: format!("/pod/{id}").into(),
        systemd_cgroup: false,
        container_name: id.to_string(),
    };
    let manager = create_cgroup_manager(config).map_err(|error| failed(&error))?;
    let options =
        ControllerOpt { resources, disable_oom_killer: false, oom_score_adj: None, freezer_state: None };
    manager.apply(&options).map_err(|error| failed(&error))
}
