//! From a CRI container configuration to an OCI runtime specification: pure functions, which touch no file.
//!
//! The measure is what containerd makes of the same request. What the guest cannot do is refused by name.

#![forbid(unsafe_code)]

mod annotations;
mod capabilities;
mod check;
mod devices;
mod error;
mod exec;
mod image_volume;
mod metadata;
mod mounts;
mod namespaces;
mod process;
mod resources;
mod sandbox;
mod seccomp;
mod seccomp_default;
mod seccomp_localhost;
mod security;
pub mod stop_signal;
mod update;
mod user;

use std::{collections::BTreeMap, path::PathBuf};

use a3s_box_proto::{
    config::Pids,
    cri,
    ids::{ContainerId, SandboxId},
};
use oci_spec::{
    image::ImageConfiguration,
    runtime::{Linux, Root, Spec},
};

pub use error::{Kind, SpecError};
pub use exec::exec_process;
pub use metadata::{check_labels, check_name};
pub use namespaces::pid_target;
pub use sandbox::check_sandbox;
pub use seccomp_localhost::seccomp_file;
pub use update::{applied, updated};
pub use user::UserLookup;

/// The version of the runtime specification that is written.
const OCI_VERSION: &str = "1.2.0";

/// All that a container's specification follows from.
#[derive(Debug, Clone, Copy)]
pub struct Input<'a> {
    /// What the caller asks for.
    pub container: &'a cri::ContainerConfig,
    /// The pod that it belongs to.
    pub sandbox: &'a cri::PodSandboxConfig,
    /// The image's configuration.
    pub image: &'a ImageConfiguration,
    /// The image's name, where the caller's own name for it is not known.
    pub image_name: &'a str,
    /// The pod's id.
    pub sandbox_id: &'a SandboxId,
    /// The container's id.
    pub container_id: &'a ContainerId,
    /// The runtime's own directories: never a mount's source.
    pub private_dirs: &'a [PathBuf],
    /// The layer files of the images that it mounts as volumes, the lowest first, by the names in the request.
    pub image_volumes: &'a BTreeMap<String, Vec<PathBuf>>,
    /// What the file says that [`seccomp_file`] names.
    pub seccomp_profile: Option<&'a [u8]>,
    /// Major and minor numbers of the block devices that it asks for, by their paths in the request.
    pub block_devices: &'a BTreeMap<String, (i64, i64)>,
    /// Default and ceiling of the number of processes.
    pub pids: &'a Pids,
}

/// What a container is made from.
#[derive(Debug, Clone, PartialEq)]
pub struct ContainerSpec {
    /// The runtime specification. Mount sources are paths of the host; mounts of type `pod` name objects of the pod, and
    /// those of type `image` bring their layers.
    pub spec: Spec,
    /// The user, to be looked up in the container's own files.
    pub user: UserLookup,
    /// The signal that asks it to stop.
    pub stop_signal: u32,
    /// Sources of its mounts. containerd makes the missing ones as directories.
    pub host_mounts: Vec<PathBuf>,
}

/// Makes a container's specification.
///
/// # Errors
/// A field has a value that makes no sense, or asks for what the guest cannot do; the message names it.
pub fn container_spec(input: &Input<'_>) -> Result<ContainerSpec, SpecError> {
    check_labels(&input.container.labels, &input.container.annotations)?;
    let security = security::Context::of(input)?;
    let capabilities = capabilities::capabilities(&security)?;
    let mut process = process::process(input)?;
    process.set_no_new_privileges(Some(security.no_new_privs));
    process.set_oom_score_adj(resources::oom_score_adj(input.container)?);

    let mut linux = Linux::default();
    linux.set_namespaces(Some(namespaces::namespaces(&security)?));
    linux.set_seccomp(seccomp::profile(&security, capabilities.bounding().as_ref(), input.seccomp_profile)?);
    linux.set_resources(Some(resources::resources(input, security.privileged)?));
    linux.set_devices(Some(devices::devices(input, security.privileged)?));
    linux.set_masked_paths(Some(security.masked_paths()?));
    linux.set_readonly_paths(Some(security.readonly_paths()?));
    process.set_capabilities(Some(capabilities));

    let mounts = mounts::mounts(input, &security)?;
    linux.set_rootfs_propagation(mounts.propagation.map(str::to_owned));

    let mut root = Root::default();
    root.set_path("rootfs".into()).set_readonly(Some(security.readonly_rootfs));

    let mut spec = Spec::default();
    spec.set_version(OCI_VERSION.to_owned())
        .set_root(Some(root))
        .set_process(Some(process))
        .set_mounts(Some(mounts.mounts))
        .set_hostname(None)
        .set_annotations(Some(annotations::annotations(input)?))
        .set_linux(Some(linux));
    Ok(ContainerSpec {
        spec,
        user: user::lookup(input)?,
        stop_signal: stop_signal::of(input)?,
        host_mounts: mounts.sources,
    })
}

/// The image's execution parameters, if it has any.
fn image_config<'a>(input: &Input<'a>) -> Option<&'a oci_spec::image::Config> {
    input.image.config().as_ref()
}

#[cfg(test)]
mod tests;
