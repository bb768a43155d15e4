//! CreateContainer: checks and records a container. The guest hears of it when it is started.

use std::{
    collections::BTreeMap,
    path::{Component, Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use a3s_box_image::Image;
use a3s_box_proto::{
    cri::{ContainerConfig, PodSandboxConfig},
    ids::ContainerId,
};
use a3s_box_spec::{ContainerSpec, Input, check_name, container_spec, seccomp_file};
use oci_spec::runtime::Spec;
use tracing::{info, warn};

use super::{
    Container, ContainerRecord, ContainerState, MIRROR, block_device, cpuset, image_volume, pid_target,
    record::{ImageUse, RunAs, StopSignal, unique_name},
};
use crate::{
    clock::unix_nanos,
    error::Error,
    events::Kind,
    node::{
        Node, files,
        ids::new_id,
        names::{Claim, Reservation},
    },
    sandbox::{Sandbox, SandboxRecord},
    undo::UndoStack,
};

/// The OCI specification in a container's directory, where a shim looks for it.
pub const SPEC: &str = "config.json";
/// The node's seccomp profile as it was when the container was made: later changes of the file are not for it.
const SECCOMP_PROFILE: &str = "seccomp.json";
/// Docker's default profile has 14 KiB.
const MOST_SECCOMP_PROFILE: u64 = 1 << 20;
/// For each step that undoes a failed attempt: small files and one record.
const UNDO_BOUND: Duration = Duration::from_secs(30);

/// Makes a container in a pod.
pub async fn create(node: &Arc<Node>, sandbox: &str, config: ContainerConfig) -> Result<String, Error> {
    let name = config.metadata.as_ref().map(|metadata| metadata.name.as_str()).unwrap_or_default();
    if name.is_empty() {
        return Err(Error::Invalid("the container's metadata.name is missing".into()));
    }
    check_name("metadata.name of the container", name)?;
    let sandbox = node.sandboxes.get(sandbox)?;
    let owner = node.clone();
    node.finish(async move {
        // While this is held, the pod is not stopped: no container is left behind in a pod that is gone.
        let _pod_stays = sandbox.lifecycle.read().await;
        make(&owner, &sandbox, config).await
    })
    .await
}

async fn make(node: &Arc<Node>, sandbox: &Arc<Sandbox>, config: ContainerConfig) -> Result<String, Error> {
    if !sandbox.record.with(SandboxRecord::is_ready) {
        let problem = "is not ready: no container can be made in it".to_owned();
        return Err(Error::State { what: "pod sandbox", id: sandbox.id.to_string(), problem });
    }
    let most = node.config.cri.max_containers;
    if node.containers_of(sandbox).len() >= most {
        return Err(Error::TooMany { id: sandbox.id.to_string(), most });
    }
    let image = image(node, &config)?;
    let volumes = image_volume::find(node, &config)?;
    let id: ContainerId =
        new_id()?.parse().map_err(|error| Error::Invalid(format!("a new id is no id: {error}")))?;
    let mut reservation = reserve(node, sandbox, &config, &id)?;
    let mut undo = UndoStack::default();
    match record(node, sandbox, Draft { id, config, image, volumes }, &mut undo).await {
        Ok(container) => {
            reservation.keep();
            node.containers.insert(container.id.as_str(), container.clone());
            node.tell(container.id.as_str(), sandbox, &[Kind::Created]);
            info!(container = %container.id, sandbox = %sandbox.id, "container is created");
            Ok(container.id.to_string())
        }
        Err(error) => {
            for left in undo.undo(UNDO_BOUND).await {
                warn!(step = left.step, error = %left.error, "a failed container is not fully undone");
            }
            Err(error)
        }
    }
}

struct Draft {
    id: ContainerId,
    config: ContainerConfig,
    image: Image,
    /// Those that it mounts, by the names in the request.
    volumes: BTreeMap<String, Image>,
}

fn image(node: &Node, config: &ContainerConfig) -> Result<Image, Error> {
    let name = config.image.as_ref().map(|image| image.image.as_str()).unwrap_or_default();
    if name.is_empty() {
        return Err(Error::Invalid("the container's image is missing".into()));
    }
    node.images.find(name)?.ok_or_else(|| Error::NotFound { what: "image", id: name.to_owned() })
}

fn reserve(
    node: &Node,
    sandbox: &Sandbox,
    config: &ContainerConfig,
    id: &ContainerId,
) -> Result<Reservation, Error> {
    let name = unique_name(&sandbox.id, config);
    match node.container_names.claim(&name, id.as_str()) {
        Claim::Granted(reservation) => Ok(reservation),
        Claim::Making { id, .. } | Claim::Taken { id } => {
            Err(Error::Reserved { what: "container", name, id })
        }
    }
}

async fn record(
    node: &Arc<Node>,
    sandbox: &Arc<Sandbox>,
    draft: Draft,
    undo: &mut UndoStack,
) -> Result<Arc<Container>, Error> {
    let pod = sandbox.record.with(|record| record.config.clone());
    let log_path = log_path(&pod, &draft.config)?;
    let given = Given {
        image: &draft.image,
        volumes: &draft.volumes,
        seccomp_profile: read_seccomp_profile(&draft.config).await?,
        disks: block_device::find(&draft.config).await?,
    };
    let made = specify(node, sandbox, &draft.id, &draft.config, &given)?;
    let seccomp_profile = given.seccomp_profile;
    pid_target::check(node, sandbox, &draft.config)?;
    cpuset::check(&draft.config).await?;
    hold_images(node, &draft, undo)?;
    let container = Arc::new(Container::new(sandbox, new_record(sandbox, draft, &made, log_path)));
    make_missing(made.host_mounts).await?;
    undo.push("removing its directory", files::remove_tree(container.bundle.clone()));
    write_out(&container, &made.spec, seccomp_profile).await?;
    let (owner, kept) = (node.clone(), container.clone());
    undo.push("forgetting its record", async move { Ok(kept.record.delete(&owner.db).await?) });
    container.record.persist(&node.db).await?;
    Ok(container)
}

fn new_record(
    sandbox: &Sandbox,
    draft: Draft,
    made: &ContainerSpec,
    log_path: Option<String>,
) -> ContainerRecord {
    ContainerRecord {
        id: draft.id,
        sandbox: sandbox.id.clone(),
        image: image_use(&draft.image, &draft.config),
        image_volumes: draft.volumes.into_iter().map(|(name, image)| (name, image.id)).collect(),
        config: Arc::new(draft.config),
        created_at: unix_nanos(),
        log_path,
        run_as: RunAs {
            user: made.user.user.clone(),
            group: made.user.group.clone(),
            supplemental_groups: made.user.supplemental_groups.clone(),
            strict: made.user.strict,
        },
        stop_signal: StopSignal { number: made.stop_signal },
        user: None,
        state: ContainerState::Created,
    }
}

/// Makes a container's directory, with all that its shim and the next frontend read there.
async fn write_out(
    container: &Container,
    spec: &Spec,
    seccomp_profile: Option<Vec<u8>>,
) -> Result<(), Error> {
    files::make_private_dir(container.bundle.clone()).await?;
    files::write(container.bundle.join(SPEC), encode(spec)?).await?;
    if let Some(profile) = seccomp_profile {
        files::write(container.bundle.join(SECCOMP_PROFILE), profile).await?;
    }
    files::write_json(container.bundle.join(MIRROR), &container.record.get()).await
}

/// What a container is made from besides its configuration.
#[derive(Debug)]
pub(super) struct Given<'a> {
    /// The image that its root filesystem is made of.
    pub image: &'a Image,
    /// Those that it mounts, by the names in the request.
    pub volumes: &'a BTreeMap<String, Image>,
    /// The numbers of its block devices, by the paths in the request.
    pub disks: BTreeMap<String, (i64, i64)>,
    /// The node's seccomp profile, where it asks for one.
    pub seccomp_profile: Option<Vec<u8>>,
}

/// The specification of a container's configuration.
pub(super) fn specify(
    node: &Node,
    sandbox: &Sandbox,
    id: &ContainerId,
    container: &ContainerConfig,
    given: &Given<'_>,
) -> Result<ContainerSpec, Error> {
    let config = &node.config;
    let image = given.image;
    let pod = sandbox.record.with(|record| record.config.clone());
    let private_dirs = [config.root_dir.clone(), config.state_dir.clone(), config.netns_dir.clone()];
    let volumes = given.volumes.iter();
    let image_volumes = volumes.map(|(name, image)| (name.clone(), image.layers.clone())).collect();
    let input = Input {
        container,
        sandbox: &pod,
        image: &image.config,
        image_name: image.repo_tags.first().unwrap_or(&image.id),
        sandbox_id: &sandbox.id,
        container_id: id,
        private_dirs: &private_dirs,
        image_volumes: &image_volumes,
        block_devices: &given.disks,
        seccomp_profile: given.seccomp_profile.as_deref(),
        pids: &config.pids,
    };
    let name = container.metadata.clone().unwrap_or_default().name;
    container_spec(&input)
        .map_err(|error| Error::at(format!("container {name}"), "its configuration")(error.into()))
}

async fn read_seccomp_profile(config: &ContainerConfig) -> Result<Option<Vec<u8>>, Error> {
    match seccomp_file(config)? {
        Some(path) => files::read_bounded(path, MOST_SECCOMP_PROFILE)
            .await
            .map(Some)
            .map_err(Error::at("seccomp Localhost", "the node's profile")),
        None => Ok(None),
    }
}

/// The profile that was taken over when the container was made.
pub(super) async fn taken_seccomp_profile(container: &Container) -> Result<Option<Vec<u8>>, Error> {
    match seccomp_file(&container.record.get().config)? {
        Some(_) => {
            files::read_bounded(container.bundle.join(SECCOMP_PROFILE), MOST_SECCOMP_PROFILE).await.map(Some)
        }
        None => Ok(None),
    }
}

/// A specification as a shim reads it.
pub(super) fn encode(spec: &Spec) -> Result<Vec<u8>, Error> {
    serde_json::to_vec(spec)
        .map_err(|error| Error::Invalid(format!("the container's specification cannot be encoded: {error}")))
}

fn hold_images(node: &Arc<Node>, draft: &Draft, undo: &mut UndoStack) -> Result<(), Error> {
    let (owner, holder) = (node.clone(), draft.id.clone());
    let ids: Vec<String> = draft.volumes.values().map(|image| image.id.clone()).collect();
    let released = ids.clone();
    undo.push("releasing its images", async move {
        owner.images.release(holder.as_str());
        image_volume::release(&owner, &holder, &released);
        Ok(())
    });
    node.images.hold(&draft.image.id, draft.id.as_str())?;
    image_volume::hold(node, &draft.id, &ids)
}

/// The names that clients compare: a tag, and a digest.
fn image_use(image: &Image, config: &ContainerConfig) -> ImageUse {
    let asked = config.image.clone().unwrap_or_default();
    let asked = if asked.user_specified_image.is_empty() { asked.image } else { asked.user_specified_image };
    ImageUse {
        id: image.id.clone(),
        name: image.repo_tags.first().cloned().unwrap_or(asked),
        reference: image.repo_digests.first().cloned().unwrap_or_else(|| image.id.clone()),
    }
}

/// The pod's log directory and the container's file in it; either may be missing, and then nothing is logged.
fn log_path(pod: &PodSandboxConfig, config: &ContainerConfig) -> Result<Option<String>, Error> {
    if pod.log_directory.is_empty() || config.log_path.is_empty() {
        return Ok(None);
    }
    let path = Path::new(&config.log_path);
    let inside = path.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
    if !inside || config.log_path.contains('\0') {
        let message = format!("log path {path:?} must be relative, without \"..\" and NUL bytes");
        return Err(Error::Invalid(message));
    }
    Ok(Some(Path::new(&pod.log_directory).join(path).to_string_lossy().into_owned()))
}

/// kubelet makes its volumes itself; a hostPath without a type may be missing, and becomes a directory.
async fn make_missing(sources: Vec<PathBuf>) -> Result<(), Error> {
    for source in sources {
        files::make_missing_dir(source).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(directory: &str, file: &str) -> Result<Option<String>, Error> {
        let pod = PodSandboxConfig { log_directory: directory.into(), ..Default::default() };
        log_path(&pod, &ContainerConfig { log_path: file.into(), ..Default::default() })
    }

    #[test]
    fn logs_stay_in_the_pods_directory() {
        assert_eq!(paths("/var/log/pods/a", "main/0.log").unwrap().unwrap(), "/var/log/pods/a/main/0.log");
        assert_eq!(paths("", "main/0.log").unwrap(), None);
        assert_eq!(paths("/var/log/pods/a", "").unwrap(), None);
        assert!(paths("/var/log/pods/a", "../b/0.log").is_err());
        assert!(paths("/var/log/pods/a", "/etc/passwd").is_err());
    }
}
