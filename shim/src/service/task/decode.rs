//! containerd's task requests, as the pod understands them.

use std::path::PathBuf;

use a3s_box_proto::{agent::UserLookup, shim::CreateOptions};
use containerd_shim_protos::api::{CreateTaskRequest, ExecProcessRequest, Mount, UpdateTaskRequest};
use protobuf::{Message, well_known_types::any::Any};

use crate::{
    error::{Error, Result},
    io::{Stdio, hub::Input},
    pod::{
        container::{Rootfs, Wanted},
        container_spec::Resources,
        exec::ExecWanted,
    },
    rootfs::mounted::RootMount,
};

/// Our own options.
const OPTIONS: &str = "a3s.box.shim.v1.CreateOptions";

pub(super) fn container(request: CreateTaskRequest) -> Result<Wanted> {
    if !request.checkpoint.is_empty() || !request.parent_checkpoint.is_empty() {
        return Err(Error::Unsupported("a container from a checkpoint"));
    }
    let stdio = Stdio::parse(&request.stdin, &request.stdout, &request.stderr, request.terminal)?;
    let mut options = options(request.options.as_ref())?;
    Ok(Wanted {
        id: request.id.parse()?,
        bundle: PathBuf::from(request.bundle),
        rootfs: rootfs(request.rootfs)?,
        input: input(&options, &stdio),
        stdio,
        user: user(&mut options),
    })
}

/// Layers in EROFS files are left to the guest; all else the host mounts.
fn rootfs(mounts: Vec<Mount>) -> Result<Rootfs> {
    if mounts.iter().any(|mount| !mount.target.is_empty()) {
        return Err(Error::Unsupported("a root filesystem with mounts inside"));
    }
    if mounts.iter().all(|mount| mount.type_ == "erofs") {
        return Ok(Rootfs::Layers(mounts.into_iter().map(|mount| mount.source.into()).collect()));
    }
    let convert =
        |mount: Mount| RootMount { kind: mount.type_, source: mount.source, options: mount.options };
    Ok(Rootfs::Mounts(mounts.into_iter().map(convert).collect()))
}

fn options(options: Option<&Any>) -> Result<CreateOptions> {
    let Some(any) = options.filter(|any| any.type_url.rsplit('/').next() == Some(OPTIONS)) else {
        // containerd's, or none: the specification names the user by number.
        return Ok(CreateOptions::default());
    };
    CreateOptions::parse_from_bytes(&any.value)
        .map_err(|error| Error::invalid("the container's options", error.to_string()))
}

fn user(options: &mut CreateOptions) -> Option<UserLookup> {
    options.user.take().map(|user| UserLookup {
        user: user.user,
        group: user.group,
        supplemental_groups: user.supplemental_groups,
        strict: user.strict,
        ..UserLookup::default()
    })
}

fn input(options: &CreateOptions, stdio: &Stdio) -> Input {
    // A terminal outlives its clients: one whose connection broke comes again.
    match (&stdio.stdin, options.stdin, options.stdin_once && !stdio.terminal) {
        (Some(_), ..) | (None, false, _) => Input::None,
        (None, true, false) => Input::Attached,
        (None, true, true) => Input::AttachedOnce,
    }
}

pub(super) fn exec(request: ExecProcessRequest) -> Result<ExecWanted> {
    let stdio = Stdio::parse(&request.stdin, &request.stdout, &request.stderr, request.terminal)?;
    Ok(ExecWanted {
        id: request.exec_id.parse()?,
        process: request.spec.into_option().unwrap_or_default().value,
        stdio,
    })
}

/// containerd packs OCI's `linux.resources` as JSON.
pub(super) fn resources(request: UpdateTaskRequest) -> Result<Resources> {
    let resources = request.resources.into_option().unwrap_or_default().value;
    match serde_json::from_slice::<Resources>(&resources) {
        Ok(value) if value.is_object() => Ok(value),
        _ => Err(Error::invalid("the resources", "no JSON object of OCI's linux.resources")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mount(kind: &str, source: &str) -> Mount {
        Mount { type_: kind.into(), source: source.into(), ..Mount::default() }
    }

    #[test]
    fn erofs_files_go_to_the_guest_and_all_else_is_mounted() {
        let layers = rootfs(vec![mount("erofs", "/l/0"), mount("erofs", "/l/1")]).unwrap();
        assert!(matches!(layers, Rootfs::Layers(files) if files == [PathBuf::from("/l/0"), "/l/1".into()]));
        let mounts = rootfs(vec![mount("overlay", "overlay")]).unwrap();
        assert!(matches!(mounts, Rootfs::Mounts(mounts) if mounts.len() == 1));
    }

    #[test]
    fn an_id_that_is_a_path_is_refused() {
        let request = CreateTaskRequest { id: "../x".into(), ..CreateTaskRequest::default() };
        assert!(container(request).is_err());
    }
}
