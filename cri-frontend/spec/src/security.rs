//! The security context, read once.

use a3s_box_proto::cri::{
    self, ContainerConfig, LinuxContainerSecurityContext, security_profile::ProfileType,
};

use crate::{
    Input, check,
    error::{SpecError, invalid, unsupported},
};

/// Hidden where the request does not say otherwise: containerd's and Kubernetes' own list.
const MASKED: [&str; 12] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];
/// Read-only where the request does not say otherwise.
const READONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// How a system's security modules confine a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Profile {
    /// Nothing was said.
    Unset,
    /// The runtime's own.
    RuntimeDefault,
    /// None.
    Unconfined,
    /// A file or a loaded profile of the node.
    Localhost(String),
}

/// What a container may do.
#[derive(Debug)]
pub(crate) struct Context<'a> {
    pub privileged: bool,
    pub no_new_privs: bool,
    pub readonly_rootfs: bool,
    pub capabilities: Option<&'a cri::Capability>,
    pub namespaces: Option<&'a cri::NamespaceOption>,
    pub seccomp: Profile,
    masked_paths: &'a [String],
    readonly_paths: &'a [String],
}

/// The part of the request that speaks of security.
pub(crate) fn of_container(container: &ContainerConfig) -> Option<&LinuxContainerSecurityContext> {
    container.linux.as_ref()?.security_context.as_ref()
}

impl<'a> Context<'a> {
    /// Reads the context and refuses what cannot be honoured.
    pub fn of(input: &Input<'a>) -> Result<Self, SpecError> {
        let Some(context) = of_container(input.container) else {
            return Ok(Self::nothing_said());
        };
        let sandbox = input.sandbox.linux.as_ref().and_then(|linux| linux.security_context.as_ref());
        if context.privileged && !sandbox.is_some_and(|sandbox| sandbox.privileged) {
            return Err(invalid(
                "privileged",
                "no privileged container is allowed in a pod that is not privileged",
            ));
        }
        check_apparmor(context)?;
        Ok(Self {
            privileged: context.privileged,
            no_new_privs: context.no_new_privs,
            readonly_rootfs: context.readonly_rootfs,
            capabilities: context.capabilities.as_ref(),
            namespaces: context.namespace_options.as_ref(),
            seccomp: seccomp(context)?,
            masked_paths: &context.masked_paths,
            readonly_paths: &context.readonly_paths,
        })
    }

    fn nothing_said() -> Self {
        Self {
            privileged: false,
            no_new_privs: false,
            readonly_rootfs: false,
            capabilities: None,
            namespaces: None,
            seccomp: Profile::Unset,
            masked_paths: &[],
            readonly_paths: &[],
        }
    }

    /// Paths that the container sees empty.
    pub fn masked_paths(&self) -> Result<Vec<String>, SpecError> {
        self.paths("masked_paths", self.masked_paths, &MASKED)
    }

    /// Paths that the container can only read.
    pub fn readonly_paths(&self) -> Result<Vec<String>, SpecError> {
        self.paths("readonly_paths", self.readonly_paths, &READONLY)
    }

    fn paths(&self, field: &str, asked: &[String], defaults: &[&str]) -> Result<Vec<String>, SpecError> {
        if self.privileged {
            return Ok(Vec::new());
        }
        if asked.is_empty() {
            return Ok(defaults.iter().map(ToString::to_string).collect());
        }
        for path in asked {
            check::absolute_path(field, path)?;
        }
        Ok(asked.to_vec())
    }
}

#[allow(deprecated)]
/// How system calls are filtered.
pub(crate) fn seccomp(context: &LinuxContainerSecurityContext) -> Result<Profile, SpecError> {
    match &context.seccomp {
        Some(profile) => of_message("seccomp", profile),
        None => of_text("seccomp_profile_path", &context.seccomp_profile_path),
    }
}

/// The guest has no AppArmor: as on any host without it, only a profile of its own is refused.
#[allow(deprecated)]
fn check_apparmor(context: &LinuxContainerSecurityContext) -> Result<(), SpecError> {
    let profile = match &context.apparmor {
        Some(profile) => of_message("apparmor", profile)?,
        None => of_text("apparmor_profile", &context.apparmor_profile)?,
    };
    match profile {
        Profile::Localhost(name) => {
            let reason = format!(
                "the guest has no AppArmor, so the profile {} cannot be applied",
                check::shown(&name)
            );
            Err(unsupported("apparmor", reason))
        }
        Profile::Unset | Profile::RuntimeDefault | Profile::Unconfined => Ok(()),
    }
}

fn of_message(field: &str, profile: &cri::SecurityProfile) -> Result<Profile, SpecError> {
    match ProfileType::try_from(profile.profile_type) {
        Ok(ProfileType::RuntimeDefault) => Ok(Profile::RuntimeDefault),
        Ok(ProfileType::Unconfined) => Ok(Profile::Unconfined),
        Ok(ProfileType::Localhost) => {
            let name = &profile.localhost_ref;
            Ok(Profile::Localhost(name.strip_prefix("localhost/").unwrap_or(name).to_owned()))
        }
        Err(_) => Err(invalid(field, format!("{} is no profile's type", profile.profile_type))),
    }
}

/// The deprecated form.
fn of_text(field: &str, text: &str) -> Result<Profile, SpecError> {
    match text {
        "" => Ok(Profile::Unset),
        "unconfined" => Ok(Profile::Unconfined),
        "runtime/default" | "docker/default" => Ok(Profile::RuntimeDefault),
        other => match other.strip_prefix("localhost/") {
            Some(name) => Ok(Profile::Localhost(name.to_owned())),
            None => {
                let reason = "is none of runtime/default, unconfined and localhost/<name>";
                Err(invalid(field, format!("{} {reason}", check::shown(other))))
            }
        },
    }
}
