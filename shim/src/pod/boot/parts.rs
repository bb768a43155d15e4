//! What a VM is made of, got ready before its VMM starts.

use std::{fs::File, io, path::Path, sync::Arc};

use a3s_box_proto::{config::Config, ports::MOST_INTERFACES};
use rustix::fs::{Access, access};
use tokio::net::UnixListener;

use super::{BootError, Environment};
use crate::{
    cgroup::Cgroup,
    device::{
        disk,
        nic::{self, Nic},
        virtiofs, vsock,
    },
    error::interrupted,
    network::{self, Mac},
    pod::{resources::Resources, spec::PodSpec},
    rootfs::shared_dir::SharedDir,
    sys::{namespace, thread::blocking, uid::Uid},
    vm::{self, Accelerator, Devices, Files},
};

const KVM: &str = "/dev/kvm";

/// Opens kernel and initramfs, and looks for the programs: each error names the configuration key. Programs' own words
/// for an absent file help nobody.
pub(super) fn open_files(config: &Config, accelerator: Accelerator) -> io::Result<Files> {
    let named = |key: &str, path: &Path, error: io::Error| {
        io::Error::new(io::ErrorKind::NotFound, format!("{key} = {}: {error}", path.display()))
    };
    for (key, path) in [
        vm::program(&config.vm),
        ("helpers.virtiofsd", &config.helpers.virtiofsd),
        ("helpers.vhost_device_vsock", &config.helpers.vhost_device_vsock),
        ("helpers.mkfs_ext4", &config.helpers.mkfs_ext4),
    ] {
        access(path, Access::EXEC_OK).map_err(|error| named(key, path, error.into()))?;
    }
    let open = |key, path: &Path| File::open(path).map_err(|error| named(key, path, error));
    let kvm = match accelerator {
        // The VMM's user may not open it.
        Accelerator::Kvm => Some(
            File::options()
                .read(true)
                .write(true)
                .open(KVM)
                .map_err(|error| named("vm.accelerator", Path::new(KVM), error))?,
        ),
        Accelerator::Tcg { .. } => None,
    };
    Ok(Files {
        kernel: open("vm.kernel", &config.vm.kernel)?,
        initramfs: open("vm.initramfs", &config.vm.initramfs)?,
        kvm,
    })
}

/// User id, cgroup and shared directory: all that must be there before the first process is. Answers the user id.
pub(super) async fn claim(
    environment: &Environment<'_>,
    resources: &mut Resources,
) -> Result<u32, BootError> {
    let (config, pod) = (environment.config.clone(), environment.pod.clone());
    let (layout, cgroup) = (environment.layout.clone(), environment.cgroup.to_owned());
    let uid = blocking(move || Uid::claim(&config, pod.as_str())).await;
    let uid = resources.uid.insert(uid.map_err(BootError::at("claiming a user id"))?).number();
    let joined = blocking(move || Cgroup::join(&cgroup)).await;
    resources.cgroup = Some(joined.map_err(BootError::at("joining the pod's cgroup"))?);
    resources.record().map_err(BootError::at("writing the pod's record"))?;
    let shared = blocking(move || SharedDir::make(layout.share(), layout.places())).await;
    resources.share = Some(shared.map_err(BootError::at("making the shared directory"))?);
    Ok(uid)
}

/// What the VMM is started with, and where its guest reports.
pub(super) struct Parts {
    pub devices: Devices,
    /// Where the agent will report.
    pub ready: UnixListener,
    pub device_macs: Vec<Mac>,
}

/// Starts the devices' other ends, all at once.
pub(super) async fn make(
    environment: &Environment<'_>,
    spec: &PodSpec,
    files: Files,
    uid: u32,
    resources: &mut Resources,
) -> Result<Parts, BootError> {
    let (config, layout) = (environment.config, environment.layout);
    let share = layout.share();
    let vsock_directory = layout.vsock();
    // Joined, not tried: none is abandoned in the middle because another failed.
    let (share, vsock, scratch, nics) = tokio::join!(
        virtiofs::start(&config.helpers.virtiofsd, &layout.run, &share),
        vsock::start(&config.helpers.vhost_device_vsock, &vsock_directory, uid),
        disk::make(config, &layout.disk, spec.annotations.scratch_mb, environment.cancel),
        environment.cancel.run_until_cancelled(make_nics(environment, spec)),
    );
    let nics = nics.unwrap_or_else(|| Err(interrupted()));
    let share = share.map(|daemon| {
        resources.share_daemon = Some(daemon.process.identity().pid.unsigned_abs());
        resources.helpers.push(Arc::new(daemon.process));
        daemon.vhost
    });
    let vsock = vsock.map(|backend| {
        resources.helpers.push(Arc::new(backend.process));
        (backend.vhost, backend.connector, backend.ready)
    });
    let share = share.map_err(BootError::at("starting virtiofsd"))?;
    let (vhost, connector, ready) = vsock.map_err(BootError::at("starting the vsock backend"))?;
    let scratch = scratch.map_err(BootError::at("making the scratch disk"))?;
    let nics = nics.map_err(BootError::at("making the taps in the pod's network namespace"))?;
    let device_macs = nics.iter().map(|nic| nic.mac).collect();
    let devices = Devices { files, vsock: vhost, connector, share, scratch, nics };
    Ok(Parts { devices, ready, device_macs })
}

/// As many as the pod is known to need; of a network that is there already, each interface counts.
async fn make_nics(environment: &Environment<'_>, spec: &PodSpec) -> io::Result<Vec<Nic>> {
    let Some(path) = &spec.netns else { return Ok(Vec::new()) };
    let open = || async {
        let opened = namespace::open(environment.host, path).await;
        opened.map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))
    };
    let there = network::count(open().await?).await?;
    let spare = spec.more_interfaces.max(environment.config.network.spare_interfaces);
    let count = there.max(1 + spare);
    if count > MOST_INTERFACES {
        let reason =
            format!("{count} interfaces: a MicroVM has network devices for {MOST_INTERFACES} at most");
        return Err(io::Error::new(io::ErrorKind::Unsupported, reason));
    }
    nic::make(open().await?, environment.pod.as_str(), count).await
}
