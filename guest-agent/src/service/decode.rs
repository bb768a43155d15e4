//! Requests become the domain's types, or errors that name the field.

use a3s_box_proto::{
    agent::{self, create_container_request::Rootfs},
    ids::{ContainerId, ExecId},
};

use crate::{
    container::{create, exec, user},
    error::Error,
    init::network::{self, Network},
    process::stdio::Streams,
    rootfs::{Wanted, erofs::is_layer_name},
    sandbox::Configuration,
    sys::tty::Size,
    volume::{PodFiles, block::Disk, memory, mirror},
};

/// The kernel's limit for a host's name.
const MAX_HOSTNAME: usize = 64;
/// overlayfs's own limit.
const MAX_LAYERS: usize = 500;

/// A process: a container's own, or an exec.
#[derive(Debug)]
pub struct Target {
    /// Whose.
    pub container: ContainerId,
    /// None: its init process.
    pub exec: Option<ExecId>,
}

impl Target {
    /// Reads the two ids of a request.
    pub fn parse(container: String, exec: String) -> Result<Self, Error> {
        let exec = if exec.is_empty() { None } else { Some(exec_id(exec)?) };
        Ok(Self { container: container_id(container)?, exec })
    }
}

/// A container's id.
pub fn container_id(id: String) -> Result<ContainerId, Error> {
    id.try_into().map_err(|error| Error::invalid("container_id", error))
}

fn exec_id(id: String) -> Result<ExecId, Error> {
    id.try_into().map_err(|error| Error::invalid("exec_id", error))
}

/// A volume's file name.
pub fn volume(name: String) -> Result<String, Error> {
    if is_layer_name(&name) {
        Ok(name)
    } else {
        Err(Error::invalid("volume", format!("{name:?} is no file name")))
    }
}

fn disk(disk: &agent::Disk) -> Result<Disk, Error> {
    let lun = u8::try_from(disk.lun).map_err(|error| Error::invalid("disks.lun", error))?;
    Ok(Disk { lun, host: (i64::from(disk.major), i64::from(disk.minor)) })
}

/// MirrorVolume.
pub fn mirror(request: agent::MirrorVolumeRequest) -> Result<mirror::Wanted, Error> {
    let is_hidden_name = |name: &str| name.len() > 2 && name.starts_with("..") && !name.contains(['/', '\0']);
    if !is_hidden_name(&request.data) {
        return Err(Error::invalid("data", format!("{:?} is no directory of an AtomicWriter", request.data)));
    }
    let limits = mirror::Limits { bytes: request.max_bytes, entries: request.max_entries };
    Ok(mirror::Wanted { name: volume(request.name)?, data: request.data, limits })
}

/// ProvideMemory.
pub fn memory(request: agent::ProvideMemoryRequest) -> Result<memory::Wanted, Error> {
    let directory = |directory: agent::Directory| memory::Directory {
        path: directory.path.into(),
        mode: directory.mode & 0o7777,
        uid: directory.uid,
        gid: directory.gid,
    };
    let shown = match request.path.is_empty() {
        true => None,
        false => Some((request.path.into(), volume(request.shown)?)),
    };
    Ok(memory::Wanted {
        name: volume(request.name)?,
        pages: match request.hugepage_bytes {
            0 => memory::Pages::Ordinary(request.bytes),
            each => memory::Pages::Huge(each),
        },
        directories: request.directories.into_iter().map(directory).collect(),
        shown,
    })
}

/// A signal's number; 0 only asks whether the process is there.
pub fn signal(number: u32) -> Result<i32, Error> {
    match i32::try_from(number) {
        Ok(signal) if signal <= libc::SIGRTMAX() => Ok(signal),
        _ => Err(Error::invalid("signal", format!("{number} is no signal"))),
    }
}

/// A terminal's size.
pub fn size(width: u32, height: u32) -> Result<Size, Error> {
    let cells = |cells: u32| {
        u16::try_from(cells).map_err(|_| Error::invalid("terminal size", format!("{cells} is too large")))
    };
    Ok(Size { width: cells(width)?, height: cells(height)? })
}

/// CreateContainer.
pub fn create(request: agent::CreateContainerRequest) -> Result<create::Wanted, Error> {
    Ok(create::Wanted {
        disks: request.disks.iter().map(disk).collect::<Result<_, _>>()?,
        id: container_id(request.container_id)?,
        spec: request.spec,
        rootfs: rootfs(request.rootfs)?,
        user: request.user.into_option().map(|user| user::Wanted {
            user: user.user,
            group: user.group,
            supplemental_groups: user.supplemental_groups,
            strict: user.strict,
        }),
        stdin: request.stdin,
    })
}

fn rootfs(rootfs: Option<Rootfs>) -> Result<Wanted, Error> {
    let wrong = |why: String| Err(Error::invalid("rootfs", why));
    match rootfs {
        Some(Rootfs::Overlay(overlay)) => {
            if overlay.layers.is_empty() || overlay.layers.len() > MAX_LAYERS {
                return wrong(format!("{} layers: 1 to {MAX_LAYERS} are possible", overlay.layers.len()));
            }
            match overlay.layers.iter().find(|name| !is_layer_name(name)) {
                Some(name) => wrong(format!("layer {name:?} is no file name")),
                None => Ok(Wanted::Overlay(overlay.layers)),
            }
        }
        Some(Rootfs::Shared(shared)) if shared.path.is_empty() => {
            wrong("the shared path is empty".to_owned())
        }
        Some(Rootfs::Shared(shared)) => Ok(Wanted::Shared(shared.path)),
        // Nothing is ever guessed here: a guessed device once was the host's disk (CVE-2026-24054).
        Some(_) | None => wrong("a container needs layers or a shared directory".to_owned()),
    }
}

/// Exec.
pub fn exec(request: agent::ExecRequest) -> Result<(ContainerId, exec::Wanted), Error> {
    let streams = Streams { stdin: request.stdin, stdout: request.stdout, stderr: request.stderr };
    let id = container_id(request.container_id)?;
    let wanted = exec::Wanted { id: exec_id(request.exec_id)?, process: request.process, streams };
    Ok((id, wanted))
}

/// ConfigureSandbox.
pub fn sandbox(request: agent::ConfigureSandboxRequest) -> Result<Configuration, Error> {
    if request.hostname.len() > MAX_HOSTNAME || request.hostname.contains(['\0', '\n']) {
        return Err(Error::invalid("hostname", format!("{:?} is no host's name", request.hostname)));
    }
    let netlink = |asked: Vec<agent::NetlinkRequest>| {
        asked.into_iter().map(|one| network::Request { what: one.what, message: one.message }).collect()
    };
    Ok(Configuration {
        network: Network {
            spare: request.spare_devices,
            identify: netlink(request.identify),
            settle: netlink(request.settle),
            sysctls: request.network_sysctls.into_iter().map(|one| (one.name, one.value)).collect(),
        },
        sysctls: request.sysctls.into_iter().collect(),
        files: PodFiles {
            hostname: request.hostname,
            resolv_conf: request.resolv_conf,
            hosts: request.hosts,
            shm_bytes: request.shm_bytes,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_without_a_root_filesystem_is_refused() {
        let overlay = |layers: &[&str]| {
            let layers = layers.iter().map(|&name| name.to_owned()).collect();
            rootfs(Some(Rootfs::Overlay(agent::OverlayRootfs { layers, ..Default::default() })))
        };
        assert!(rootfs(None).is_err());
        assert!(overlay(&[]).is_err());
        assert!(overlay(&["a.erofs", "../b"]).is_err());
        assert!(overlay(&["a.erofs"]).is_ok());
        assert!(rootfs(Some(Rootfs::Shared(agent::SharedRootfs::new()))).is_err());
    }

    #[test]
    fn fields_are_checked_by_name() {
        let error = container_id("../x".to_owned()).unwrap_err().to_string();
        assert!(error.starts_with("invalid container_id:"), "{error}");
        assert!(Target::parse("c".to_owned(), "-x".to_owned()).is_err());
        assert!(Target::parse("c".to_owned(), String::new()).unwrap().exec.is_none());
        assert!(signal(64).is_ok() && signal(65).is_err() && signal(u32::MAX).is_err());
        assert!(size(80, 70_000).is_err());
    }
}
