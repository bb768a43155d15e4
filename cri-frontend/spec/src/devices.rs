//! Devices: a container has the guest's. Of the host's it can have block devices: the shim gives them to the VM.

use oci_spec::runtime::{LinuxDevice, LinuxDeviceCgroup, LinuxDeviceType};

use crate::{
    Input, check,
    error::{SpecError, invalid, unsupported},
};

/// A device that every guest has, besides those that every container has anyway; or a block device of the host, by its
/// numbers there.
#[derive(Clone, Copy)]
struct Device {
    path: &'static str,
    kind: LinuxDeviceType,
    major: i64,
    minor: i64,
    mode: u32,
}

const fn block((major, minor): (i64, i64)) -> Device {
    Device { path: "", kind: LinuxDeviceType::B, major, minor, mode: 0o660 }
}

const fn character(path: &'static str, major: i64, minor: i64, mode: u32) -> Device {
    Device { path, kind: LinuxDeviceType::C, major, minor, mode }
}

const FUSE: Device = character("/dev/fuse", 10, 229, 0o666);
const TUN: Device = character("/dev/net/tun", 10, 200, 0o666);
const KMSG: Device = character("/dev/kmsg", 1, 11, 0o644);
const LOOP_CONTROL: Device = character("/dev/loop-control", 10, 237, 0o660);

/// What a container may ask for.
const ON_REQUEST: [Device; 2] = [FUSE, TUN];
/// What a privileged container finds in its /dev. It may make nodes of all others itself.
const PRIVILEGED: [Device; 4] = [FUSE, TUN, KMSG, LOOP_CONTROL];
/// What libcontainer puts into every container.
const ALWAYS: [&str; 6] = ["/dev/full", "/dev/null", "/dev/random", "/dev/tty", "/dev/urandom", "/dev/zero"];

/// A device that the container asks for, and what it may do with it.
struct Asked {
    device: Device,
    path: String,
    access: String,
}

/// The nodes in the container's /dev, besides the usual ones.
pub(crate) fn devices(input: &Input<'_>, privileged: bool) -> Result<Vec<LinuxDevice>, SpecError> {
    let asked = asked(input)?;
    let mut nodes: Vec<LinuxDevice> = asked.iter().map(|asked| node(&asked.device, &asked.path)).collect();
    if privileged {
        let missing = PRIVILEGED.iter().filter(|device| asked.iter().all(|asked| asked.path != device.path));
        nodes.extend(missing.map(|device| node(device, device.path)));
    }
    Ok(nodes)
}

/// Who may use which device: none but the usual ones, those asked for, or all.
pub(crate) fn rules(input: &Input<'_>, privileged: bool) -> Result<Vec<LinuxDeviceCgroup>, SpecError> {
    let mut everything = LinuxDeviceCgroup::default();
    everything.set_allow(privileged).set_access(Some("rwm".to_owned()));
    let mut rules = vec![everything];
    if !privileged {
        for asked in asked(input)? {
            let mut rule = LinuxDeviceCgroup::default();
            rule.set_allow(true)
                .set_typ(Some(asked.device.kind))
                .set_major(Some(asked.device.major))
                .set_minor(Some(asked.device.minor))
                .set_access(Some(asked.access));
            rules.push(rule);
        }
    }
    Ok(rules)
}

fn asked(input: &Input<'_>) -> Result<Vec<Asked>, SpecError> {
    let container = input.container;
    if let Some(device) = container.cdi_devices.first() {
        let name = check::shown(&device.name);
        return Err(unsupported(format!("CDI_devices[{name}]"), "it names a device of the host"));
    }
    let mut found = Vec::new();
    for asked in &container.devices {
        let field = format!("devices[{}]", check::shown(&asked.host_path));
        let host = check::absolute_path(&field, &asked.host_path)?;
        let path = check::absolute_path(&field, &asked.container_path)?.to_string_lossy().into_owned();
        if ALWAYS.iter().any(|always| host.as_os_str() == *always && path == *always) {
            continue;
        }
        let own = ON_REQUEST.iter().find(|device| host.as_os_str() == device.path).copied();
        let disk = || input.block_devices.get(&asked.host_path).map(|number| block(*number));
        let device = own.or_else(disk).ok_or_else(|| {
            let own: Vec<&str> = ON_REQUEST.iter().map(|device| device.path).collect();
            let reason = format!(
                "it is no block device of the host, and of its own devices a guest offers {}",
                own.join(" and ")
            );
            unsupported(field.clone(), reason)
        })?;
        found.push(Asked { device, path, access: access(&field, &asked.permissions)? });
    }
    Ok(found)
}

fn access(field: &str, permissions: &str) -> Result<String, SpecError> {
    match permissions {
        "" => Ok("rwm".to_owned()),
        _ if permissions.chars().all(|c| "rwm".contains(c)) => Ok(permissions.to_owned()),
        _ => Err(invalid(field, format!("permissions {} are not of r, w and m", check::shown(permissions)))),
    }
}

fn node(device: &Device, path: &str) -> LinuxDevice {
    let mut node = LinuxDevice::default();
    node.set_path(path.into())
        .set_typ(device.kind)
        .set_major(device.major)
        .set_minor(device.minor)
        .set_file_mode(Some(device.mode))
        .set_uid(Some(0))
        .set_gid(Some(0));
    node
}
