//! The seccomp profile of a container.

use std::{collections::HashSet, env::consts::ARCH};

use oci_spec::runtime::{
    Arch, Capability, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompArgBuilder,
    LinuxSeccompOperator, LinuxSyscall,
};

use crate::{
    check,
    error::{SpecError, invalid},
    seccomp_default::{ALLOWED, BY_CAPABILITY, PERSONALITIES},
    seccomp_localhost,
    security::{Context, Profile},
};

/// CLONE_NEWNS, -CGROUP, -UTS, -IPC, -USER, -PID and -NET.
const NEW_NAMESPACES: u64 = 0x7e02_0000;
const AF_VSOCK: u64 = 40;

/// Nothing said means no profile, as in containerd; a privileged container has none.
pub(crate) fn profile(
    security: &Context<'_>,
    bounding: Option<&HashSet<Capability>>,
    localhost: Option<&[u8]>,
) -> Result<Option<LinuxSeccomp>, SpecError> {
    match &security.seccomp {
        _ if security.privileged => Ok(None),
        Profile::Unset | Profile::Unconfined => Ok(None),
        Profile::RuntimeDefault => runtime_default(bounding.unwrap_or(&HashSet::new())).map(Some),
        Profile::Localhost(path) => match localhost {
            Some(text) => seccomp_localhost::parse(text).map(Some),
            None => Err(invalid("seccomp Localhost", format!("{} has not been read", check::shown(path)))),
        },
    }
}

fn runtime_default(capabilities: &HashSet<Capability>) -> Result<LinuxSeccomp, SpecError> {
    let mut rules = vec![allow(ALLOWED, Vec::new()), allow(architecture_calls(), Vec::new())];
    for persona in PERSONALITIES {
        rules.push(allow("personality", vec![argument(LinuxSeccompOperator::ScmpCmpEq, persona, None)?]));
    }
    // The way out of the guest to the host's side of the pod's own channels.
    rules.push(allow("socket", vec![argument(LinuxSeccompOperator::ScmpCmpNe, AF_VSOCK, None)?]));
    for (capability, calls) in BY_CAPABILITY {
        if capabilities.contains(&capability) {
            rules.push(allow(calls, Vec::new()));
        }
    }
    if !capabilities.contains(&Capability::SysAdmin) {
        let no_namespace = argument(LinuxSeccompOperator::ScmpCmpMaskedEq, NEW_NAMESPACES, Some(0))?;
        rules.push(allow("clone", vec![no_namespace]));
        // Its flags lie in memory, where no filter looks. ENOSYS makes libraries fall back to clone.
        let mut clone3 = rule(LinuxSeccompAction::ScmpActErrno, "clone3");
        clone3.set_errno_ret(u32::try_from(libc::ENOSYS).ok());
        rules.push(clone3);
    }
    let mut profile = LinuxSeccomp::default();
    profile
        .set_default_action(LinuxSeccompAction::ScmpActErrno)
        .set_architectures(Some(architectures()))
        .set_syscalls(Some(rules));
    Ok(profile)
}

/// The guest runs on a processor of the host's kind.
fn architectures() -> Vec<Arch> {
    match ARCH {
        "x86_64" => vec![Arch::ScmpArchX86_64, Arch::ScmpArchX86, Arch::ScmpArchX32],
        "aarch64" => vec![Arch::ScmpArchAarch64, Arch::ScmpArchArm],
        _ => vec![Arch::ScmpArchNative],
    }
}

fn architecture_calls() -> &'static str {
    match ARCH {
        "x86_64" => "arch_prctl modify_ldt",
        "aarch64" => "arm_fadvise64_64 arm_sync_file_range sync_file_range2 breakpoint cacheflush set_tls",
        "riscv64" => "riscv_flush_icache",
        _ => "",
    }
}

fn rule(action: LinuxSeccompAction, calls: &str) -> LinuxSyscall {
    let mut rule = LinuxSyscall::default();
    rule.set_names(calls.split_whitespace().map(str::to_owned).collect()).set_action(action);
    rule
}

fn allow(calls: &str, arguments: Vec<LinuxSeccompArg>) -> LinuxSyscall {
    let mut rule = rule(LinuxSeccompAction::ScmpActAllow, calls);
    if !arguments.is_empty() {
        rule.set_args(Some(arguments));
    }
    rule
}

/// A comparison of the first argument; for a masked one, as runc reads it, the mask comes first.
fn argument(
    operator: LinuxSeccompOperator,
    value: u64,
    value_two: Option<u64>,
) -> Result<LinuxSeccompArg, SpecError> {
    let builder = LinuxSeccompArgBuilder::default().index(0_usize).value(value).op(operator);
    let builder = match value_two {
        Some(value) => builder.value_two(value),
        None => builder,
    };
    builder.build().map_err(|error| invalid("seccomp RuntimeDefault", error.to_string()))
}
