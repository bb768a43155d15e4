//! What a pod as a whole may ask for.

use a3s_box_proto::{
    cri::{NamespaceMode, PodSandboxConfig},
    sysctl::{self, NotThePods},
};

use crate::{
    check,
    error::{SpecError, invalid, unsupported},
    metadata::check_labels,
    namespaces::{check_user_namespace, mode},
    resources::hugepage_pool,
};

/// The longest path that Linux takes, without its NUL.
const MAX_PATH: usize = 4095;
/// Longer than any server, domain or option of a resolver.
const MAX_DNS: usize = 1024;
/// Longer than any sysctl's value.
const MAX_SYSCTL: usize = 4096;

/// Refuses a pod that no MicroVM can be.
///
/// # Errors
/// It asks for namespaces of the host, a user namespace, huge pages that the guest lacks, or sysctls that are not its
/// own; the message says why not.
pub fn check_sandbox(sandbox: &PodSandboxConfig) -> Result<(), SpecError> {
    check_labels(&sandbox.labels, &sandbox.annotations)?;
    check_dns(sandbox)?;
    let Some(linux) = &sandbox.linux else { return Ok(()) };
    hugepage_pool(sandbox)?;
    check::text("cgroup_parent", &linux.cgroup_parent, MAX_PATH)?;
    for (name, value) in &linux.sysctls {
        check_sysctl(name, value)?;
    }
    let Some(context) = &linux.security_context else { return Ok(()) };
    if context.run_as_group.is_some() && context.run_as_user.is_none() {
        return Err(invalid("run_as_group", "it is given without run_as_user"));
    }
    let Some(options) = &context.namespace_options else { return Ok(()) };
    for (name, value) in [("network", options.network), ("ipc", options.ipc), ("pid", options.pid)] {
        let field = format!("namespace_options.{name}");
        if mode(&field, value)? == NamespaceMode::Node {
            let reason =
                "a pod in a MicroVM runs on a kernel of its own and cannot share the host's namespaces";
            return Err(unsupported(format!("{field} NODE"), reason));
        }
    }
    check_user_namespace(options)
}

/// Each becomes a word of a line of resolv.conf.
fn check_dns(sandbox: &PodSandboxConfig) -> Result<(), SpecError> {
    let Some(dns) = &sandbox.dns_config else { return Ok(()) };
    for (field, words) in [("servers", &dns.servers), ("searches", &dns.searches), ("options", &dns.options)]
    {
        let field = format!("dns_config.{field}");
        for word in words {
            check::text(&field, word, MAX_DNS)?;
            if word.chars().any(|c| c.is_control() || c.is_whitespace()) {
                return Err(invalid(field, format!("{} is more than one word", check::shown(word))));
            }
        }
    }
    Ok(())
}

fn check_sysctl(name: &str, value: &str) -> Result<(), SpecError> {
    let field = || format!("sysctls[{}]", check::shown(name));
    check::text(&field(), value, MAX_SYSCTL)?;
    sysctl::check(name).map_err(|problem| match problem {
        NotThePods::Name => invalid(field(), problem.to_string()),
        NotThePods::Kernel => unsupported(field(), problem.to_string()),
    })
}

#[cfg(test)]
mod tests {
    use a3s_box_proto::cri::{
        Int64Value, LinuxPodSandboxConfig, LinuxSandboxSecurityContext, NamespaceOption, UserNamespace,
    };

    use super::*;

    fn check(change: impl FnOnce(&mut LinuxSandboxSecurityContext)) -> Result<(), SpecError> {
        let mut context = LinuxSandboxSecurityContext::default();
        change(&mut context);
        let linux = LinuxPodSandboxConfig { security_context: Some(context), ..Default::default() };
        check_sandbox(&PodSandboxConfig { linux: Some(linux), ..Default::default() })
    }

    fn options(change: impl FnOnce(&mut NamespaceOption)) -> Result<(), SpecError> {
        let mut options = NamespaceOption { pid: NamespaceMode::Container.into(), ..Default::default() };
        change(&mut options);
        check(|context| context.namespace_options = Some(options))
    }

    #[test]
    fn an_ordinary_pod_is_accepted() {
        check_sandbox(&PodSandboxConfig::default()).unwrap();
        options(|_| {}).unwrap();
        let node = UserNamespace { mode: NamespaceMode::Node.into(), ..Default::default() };
        options(|options| options.userns_options = Some(node)).unwrap();
    }

    #[test]
    fn the_hosts_namespaces_are_refused_with_the_reason() {
        let node = NamespaceMode::Node.into();
        for name in ["network", "ipc", "pid"] {
            let with = |mode| {
                options(|options| match name {
                    "network" => options.network = mode,
                    "ipc" => options.ipc = mode,
                    _ => options.pid = mode,
                })
            };
            let error = with(node).unwrap_err();
            assert!(matches!(error, SpecError::Unsupported { .. }), "{error}");
            assert!(error.to_string().contains(name), "{error}");
            assert!(error.to_string().contains("kernel of its own"), "{error}");
            assert!(with(17).is_err());
        }
        let own = UserNamespace::default();
        assert!(options(|options| options.userns_options = Some(own)).is_err());
    }

    #[test]
    fn a_group_needs_a_user() {
        let error = check(|context| context.run_as_group = Some(Int64Value { value: 7 })).unwrap_err();
        assert!(error.to_string().contains("run_as_group"));
    }
}
