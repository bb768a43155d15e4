//! Capabilities: containerd's defaults, and what the container adds and drops.

use std::collections::HashSet;

use oci_spec::runtime::{Capability, LinuxCapabilities};

use crate::{
    check,
    error::{SpecError, invalid},
    security::Context,
};

/// What a container has where nothing is said.
const DEFAULT: [Capability; 14] = [
    Capability::Chown,
    Capability::DacOverride,
    Capability::Fsetid,
    Capability::Fowner,
    Capability::Mknod,
    Capability::NetRaw,
    Capability::Setgid,
    Capability::Setuid,
    Capability::Setfcap,
    Capability::Setpcap,
    Capability::NetBindService,
    Capability::SysChroot,
    Capability::Kill,
    Capability::AuditWrite,
];

/// All others.
const MORE: [Capability; 27] = [
    Capability::AuditControl,
    Capability::AuditRead,
    Capability::BlockSuspend,
    Capability::Bpf,
    Capability::CheckpointRestore,
    Capability::DacReadSearch,
    Capability::IpcLock,
    Capability::IpcOwner,
    Capability::Lease,
    Capability::LinuxImmutable,
    Capability::MacAdmin,
    Capability::MacOverride,
    Capability::NetAdmin,
    Capability::NetBroadcast,
    Capability::Perfmon,
    Capability::SysAdmin,
    Capability::SysBoot,
    Capability::SysModule,
    Capability::SysNice,
    Capability::SysPacct,
    Capability::SysPtrace,
    Capability::SysRawio,
    Capability::SysResource,
    Capability::SysTime,
    Capability::SysTtyConfig,
    Capability::Syslog,
    Capability::WakeAlarm,
];

type Set = HashSet<Capability>;

/// What one list of a request names.
struct Named {
    all: bool,
    each: Set,
}

/// The sets of a container's process.
pub(crate) fn capabilities(security: &Context<'_>) -> Result<LinuxCapabilities, SpecError> {
    let mut has: Set = DEFAULT.into();
    let mut ambient = Set::new();
    if let Some(asked) = security.capabilities {
        let add = named("add_capabilities", &asked.add_capabilities)?;
        let add_ambient = named("add_ambient_capabilities", &asked.add_ambient_capabilities)?;
        let drop = named("drop_capabilities", &asked.drop_capabilities)?;
        if add.all || add_ambient.all {
            has = all();
        }
        if drop.all {
            has.clear();
        }
        // A single name counts more than ALL, and a dropped one more than an added one.
        has.extend(add.each.iter().chain(&add_ambient.each).copied());
        has.retain(|capability| !drop.each.contains(capability));
        ambient = if add_ambient.all { has.clone() } else { &add_ambient.each & &has };
    }
    if security.privileged {
        has = all();
    }
    let mut sets = LinuxCapabilities::default();
    sets.set_bounding(Some(has.clone()))
        .set_effective(Some(has.clone()))
        .set_permitted(Some(has))
        // The kernel keeps as ambient only what is inheritable too.
        .set_inheritable(Some(ambient.clone()))
        .set_ambient(Some(ambient));
    Ok(sets)
}

fn all() -> Set {
    DEFAULT.into_iter().chain(MORE).collect()
}

fn named(field: &str, names: &[String]) -> Result<Named, SpecError> {
    let mut named = Named { all: false, each: Set::new() };
    for name in names {
        let upper = name.to_ascii_uppercase();
        match upper.strip_prefix("CAP_").unwrap_or(&upper) {
            "ALL" => named.all = true,
            other => {
                let known = other.parse();
                named.each.insert(
                    known.map_err(|_| invalid(field, format!("{} is no capability", check::shown(name))))?,
                );
            }
        }
    }
    Ok(named)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_capability_is_listed_twice_or_left_out() {
        assert_eq!(all().len(), 41, "as many as Linux 6.12 knows");
    }
}
