//! Namespaces: network, IPC and UTS are the pod's, which in the guest are those that every process starts with.

use a3s_box_proto::{
    cri::{NamespaceMode, NamespaceOption, UserNamespace},
    ports::POD_PID_NAMESPACE,
};
use oci_spec::runtime::{LinuxNamespace, LinuxNamespaceType};

use crate::{
    error::{SpecError, invalid, unsupported},
    security::Context,
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
        NamespaceMode::Pod => {
            let mut shared = own(LinuxNamespaceType::Pid);
            shared.set_path(Some(POD_PID_NAMESPACE.into()));
            namespaces.push(shared);
        }
        // The guest's: no entry.
        NamespaceMode::Node => {}
        NamespaceMode::Target => {
            let reason = "a container cannot enter another one's PID namespace yet";
            return Err(unsupported("namespace_options.pid TARGET", reason));
        }
    }
    Ok(namespaces)
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
