//! The end of a creation that failed.

use a3s_box_proto::ids::ContainerId;
use oci_spec::runtime::Spec;

use super::{delete, limits};
use crate::{
    cgroup::Cgroup,
    error::{Error, Failed, Object},
    rootfs::{Rootfs, Storage},
};

/// Removes what a creation that failed has left, and says why it failed: `killed`, the kernel ended a process of it.
pub(super) fn give_up(
    storage: &Storage,
    id: &ContainerId,
    rootfs: &Rootfs,
    spec: &Spec,
    killed: bool,
    error: Error,
) -> Error {
    if let Err(error) = undo(storage, id, rootfs) {
        tracing::error!(container = %id, "undo the creation: {error}");
    }
    if killed {
        return too_little_memory(&error, id, spec);
    }
    let resources = spec.linux().as_ref().and_then(|linux| linux.resources().as_ref());
    resources.and_then(|resources| limits::refused(id, resources)).unwrap_or(error)
}

/// A process that the kernel killed while it was made can say nothing itself, and its cgroup is gone already.
fn too_little_memory(error: &Error, id: &ContainerId, spec: &Spec) -> Error {
    let resources = spec.linux().as_ref().and_then(|linux| linux.resources().as_ref());
    let limit = resources.and_then(|resources| resources.memory().as_ref()?.limit());
    let why = match limit {
        Some(limit) => format!("its memory limit, {limit} bytes, is too low to begin with: {error}"),
        None => format!("the guest has too little memory to begin it: {error}"),
    };
    Error::Precondition { object: Object::Container(id.clone()), why }
}

/// Removes what a creation that failed has left.
pub(super) fn undo(storage: &Storage, id: &ContainerId, rootfs: &Rootfs) -> Result<(), Failed> {
    delete::clear_processes(&Cgroup::of_container(id))?;
    delete::unmount_all(id)?;
    delete::remove_files(storage, id, rootfs)
}
