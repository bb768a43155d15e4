//! Namespaces: network, IPC and UTS are the pod's, which in the guest are those that every process starts with.

use a3s_box_proto::{
    cri::{ContainerConfig, NamespaceMode, NamespaceOption, UserNamespace},
    ids::ContainerId,
    ports::{CONTAINER_PID_NAMESPACE, POD_PID_NAMESPACE},
};
use oci_spec::runtime::{LinuxNamespace, LinuxNamespaceType};

use crate::{
    error::{SpecError, invalid, unsupported},
    security::{self, Context},
};

/// The namespaces of a container's own.
pub(crate) fn namespaces(security: &Context<'_>) -> Result<Vec<LinuxNamespace>, SpecError> {
    let mut namespaces = vec![own(LinuxNamespaceType::Mount)];
    if !security.privileged {
        namespaces.push(own(LinuxNamespaceType::Cgroup));
    }
    // POD is 0, what a request that says nothing asks for.
    let pid = match security.namespaces {
        Some(options) => {
            check_user_namespace(options)?;
            mode("namespace_options.pid", options.pid)?
        }
        None => NamespaceMode::Pod,
    };
    match pid {
        NamespaceMode::Container => namespaces.push(own(LinuxNamespaceType::Pid)),
        NamespaceMode::Pod => namespaces.push(shared(POD_PID_NAMESPACE.to_owned())),
        // The guest's: no entry.
        NamespaceMode::Node => {}
        NamespaceMode::Target => {
            let target = target(security.namespaces)?;
            namespaces.push(shared(format!("{CONTAINER_PID_NAMESPACE}{target}")));
        }
    }
    Ok(namespaces)
}

/// The container whose processes another one is to see, and be seen by.
fn target(options: Option<&NamespaceOption>) -> Result<ContainerId, SpecError> {
    let id = options.map(|options| options.target_id.as_str()).unwrap_or_default();
    id.parse().map_err(|error| invalid("namespace_options.target_id", format!("{error}")))
}

/// The container that one in PID mode TARGET names; none in another mode.
///
/// # Errors
/// It names none.
pub fn pid_target(container: &ContainerConfig) -> Result<Option<ContainerId>, SpecError> {
    let options = security::of_container(container).and_then(|context| context.namespace_options.as_ref());
    match options {
        Some(asked) if asked.pid == NamespaceMode::Target as i32 => target(options).map(Some),
        _ => Ok(None),
    }
}

fn shared(path: String) -> LinuxNamespace {
    let mut namespace = own(LinuxNamespaceType::Pid);
    namespace.set_path(Some(path.into()));
    namespace
}

fn own(kind: LinuxNamespaceType) -> LinuxNamespace {
    let mut namespace = LinuxNamespace::default();
    namespace.set_typ(kind);
    namespace
}

/// A mode of the enumeration.
pub(crate) fn mode(field: &str, value: i32) -> Result<NamespaceMode, SpecError> {
    NamespaceMode::try_from(value).map_err(|_| invalid(field, format!("{value} is no namespace mode")))
}

/// Refuses a user namespace of the pod's own.
pub(crate) fn check_user_namespace(options: &NamespaceOption) -> Result<(), SpecError> {
    let Some(UserNamespace { mode: value, .. }) = options.userns_options.as_ref() else { return Ok(()) };
    match mode("userns_options.mode", *value)? {
        // The node's, which is the guest's: what there is without this message, too.
        NamespaceMode::Node => Ok(()),
        _ => Err(unsupported("userns_options", "user namespaces within the guest are not there yet")),
    }
}
