//! A seccomp profile that the node's administrator wrote: a file in the runtime specification's form, as containerd takes it.

use std::path::PathBuf;

use a3s_box_proto::cri::ContainerConfig;
use oci_spec::runtime::{LinuxSeccomp, LinuxSeccompAction, LinuxSyscall};
use serde_json::Value;

use crate::{
    check,
    error::{SpecError, invalid, unsupported},
    security::{self, Profile},
};

const FIELD: &str = "seccomp Localhost";

/// The file of the node that holds a container's seccomp profile, if it asks for one.
///
/// # Errors
/// It is no absolute path.
pub fn seccomp_file(container: &ContainerConfig) -> Result<Option<PathBuf>, SpecError> {
    match security::of_container(container) {
        Some(context) if !context.privileged => match security::seccomp(context)? {
            Profile::Localhost(path) => check::absolute_path(FIELD, &path).map(Some),
            Profile::Unset | Profile::RuntimeDefault | Profile::Unconfined => Ok(None),
        },
        _ => Ok(None),
    }
}

/// Reads a profile.
pub(crate) fn parse(text: &[u8]) -> Result<LinuxSeccomp, SpecError> {
    let wrong = |error: serde_json::Error| invalid(FIELD, format!("the profile: {error}"));
    let value: Value = serde_json::from_slice(text).map_err(wrong)?;
    refuse_other_forms(&value)?;
    let profile: LinuxSeccomp = serde_json::from_value(value).map_err(wrong)?;
    let mut actions: Vec<_> = profile.syscalls().iter().flatten().map(LinuxSyscall::action).collect();
    actions.push(profile.default_action());
    if profile.listener_path().is_some() || actions.contains(&LinuxSeccompAction::ScmpActNotify) {
        return Err(unsupported(FIELD, "SCMP_ACT_NOTIFY: no agent of the host hears of the guest's calls"));
    }
    Ok(profile)
}

/// Docker's own form says more than the runtime specification's. Without that, its rules would mean something else.
fn refuse_other_forms(profile: &Value) -> Result<(), SpecError> {
    let foreign = |name: &str| {
        let reason = format!("the profile: `{name}` is Docker's; the runtime specification has no such key");
        Err(invalid(FIELD, reason))
    };
    if says(profile, "archMap") {
        return foreign("archMap");
    }
    for rule in profile.get("syscalls").and_then(Value::as_array).into_iter().flatten() {
        for name in ["includes", "excludes"] {
            if says(rule, name) {
                return foreign(name);
            }
        }
    }
    Ok(())
}

fn says(value: &Value, name: &str) -> bool {
    match value.get(name) {
        None | Some(Value::Null) => false,
        Some(Value::Object(map)) => !map.is_empty(),
        Some(Value::Array(list)) => !list.is_empty(),
        Some(_) => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> String {
        parse(text.as_bytes()).unwrap_err().to_string()
    }

    #[test]
    fn a_profile_of_the_runtime_specification_is_taken() {
        let text = r#"{"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64"], "comment": "",
            "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38, "includes": {}}]}"#;
        let profile = parse(text.as_bytes()).unwrap();
        assert_eq!(profile.default_action(), LinuxSeccompAction::ScmpActAllow);
        let rules = profile.syscalls().clone().unwrap();
        assert_eq!((rules.len(), rules[0].names().len(), rules[0].errno_ret()), (1, 2, Some(38)));
    }

    #[test]
    fn what_would_mean_less_than_it_says_is_refused_by_name() {
        assert!(refused("{").contains("seccomp Localhost"));
        assert!(refused(r#"{"syscalls": []}"#).contains("defaultAction"));
        assert!(refused(r#"{"defaultAction": "SCMP_ACT_PRAY"}"#).contains("SCMP_ACT_PRAY"));
        assert!(refused(r#"{"defaultAction": "SCMP_ACT_NOTIFY"}"#).contains("NOTIFY"));
        let listener = r#"{"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/run/agent"}"#;
        assert!(refused(listener).contains("NOTIFY"));
        let mapped =
            r#"{"defaultAction": "SCMP_ACT_ERRNO", "archMap": [{"architecture": "SCMP_ARCH_X86_64"}]}"#;
        assert!(refused(mapped).contains("archMap"));
        let rule =
            r#"{"names": ["bpf"], "action": "SCMP_ACT_ALLOW", "includes": {"caps": ["CAP_SYS_ADMIN"]}}"#;
        assert!(
            refused(&format!(r#"{{"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [{rule}]}}"#))
                .contains("includes")
        );
    }
}
