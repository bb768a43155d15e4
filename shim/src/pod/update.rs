//! Changes the limits of a container that runs.

use super::{
    container::Container,
    container_spec::{Resources, take_cpuset},
    sandbox::Sandbox,
};
use crate::error::{Error, Result};

impl Container {
    /// Sets limits: those of processors and memory nodes on the host, all others in the guest.
    ///
    /// # Errors
    /// A kernel refuses one of them.
    pub async fn update(&self, sandbox: &Sandbox, mut resources: Resources) -> Result<()> {
        let cpuset = take_cpuset(&mut resources)?;
        // They name devices by the host's numbers, and no update changes them.
        if let Some(resources) = resources.as_object_mut() {
            resources.remove("devices");
        }
        // The guest first: it is the one that may find something wrong.
        sandbox.agent.update(&self.id, resources.to_string().into_bytes()).await?;
        // Until it is done the container cannot give back what it holds.
        let held = self.held.lock().await;
        if held.is_none() {
            // It has, and nobody would take its processors out of the pod's again.
            let object = format!("container {}", self.id);
            return Err(Error::State { object, state: "exited".into(), action: "update" });
        }
        sandbox.allow(&self.id, cpuset).await
    }
}
