//! Changes the limits of a container that runs.

use super::{
    container::Container,
    container_spec::{Resources, take_cpuset},
    sandbox::Sandbox,
};
use crate::error::Result;

impl Container {
    /// Sets limits: those of processors and memory nodes on the host, all others in the guest.
    ///
    /// # Errors
    /// A kernel refuses one of them.
    pub async fn update(&self, sandbox: &Sandbox, mut resources: Resources) -> Result<()> {
        sandbox.allow(&self.id, take_cpuset(&mut resources)?).await?;
        Ok(sandbox.agent.update(&self.id, resources.to_string().into_bytes()).await?)
    }
}
