//! UpdateContainerResources: new limits for a container.

use std::sync::Arc;

use a3s_box_proto::cri::LinuxContainerResources;
use a3s_box_spec::updated;

use super::{
    Container, MIRROR, block_device, cpuset,
    create::{Given, SPEC, encode, specify, taken_seccomp_profile},
    image_volume,
};
use crate::{
    error::Error,
    node::{Node, files},
};

/// Changes limits of a container: those that the request names, and no others. One that does not run only remembers
/// them.
pub async fn update(node: &Arc<Node>, id: &str, resources: LinuxContainerResources) -> Result<(), Error> {
    let container = node.containers.get(id)?;
    let owner = node.clone();
    node.finish(async move {
        let _alone = container.lifecycle.lock().await;
        apply(&owner, &container, resources).await
    })
    .await
}

async fn apply(node: &Node, container: &Container, resources: LinuxContainerResources) -> Result<(), Error> {
    let record = container.record.get();
    let mut config = (*record.config).clone();
    let linux = config.linux.get_or_insert_default();
    linux.resources = Some(updated(&linux.resources.take().unwrap_or_default(), resources));
    cpuset::check(&config).await?;
    if record.state.is_exited() {
        let config = Arc::new(config);
        return Ok(container.record.commit(&node.db, |record| record.config = config).await?);
    }
    let sandbox = container.pod(node)?;
    let image = node
        .images
        .held(container.id.as_str())
        .ok_or_else(|| Error::NotFound { what: "image", id: record.image.id.clone() })?;
    let given = Given {
        image: &image,
        volumes: &image_volume::held(node, &record)?,
        disks: block_device::find(&config).await?,
        seccomp_profile: taken_seccomp_profile(container).await?,
    };
    let spec = specify(node, &sandbox, &container.id, &config, &given)?.spec;
    if record.state.is_running() {
        let limits = spec.linux().as_ref().and_then(|linux| linux.resources().as_ref());
        let limits = serde_json::to_vec(&limits)
            .map_err(|error| Error::Invalid(format!("the limits cannot be encoded: {error}")))?;
        sandbox.shim()?.update(&container.id, limits).await?;
    }
    files::write(container.bundle.join(SPEC), encode(&spec)?).await?;
    let config = Arc::new(config);
    container.record.commit(&node.db, |record| record.config = config).await?;
    files::write_json(container.bundle.join(MIRROR), &container.record.get()).await
}
