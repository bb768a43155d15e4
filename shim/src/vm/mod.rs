//! How a MicroVM is run. The rest of the shim knows this file; each VMM is a folder of its own, which nobody else names.

pub mod accelerator;
mod console;
mod qemu;
pub mod sev_snp;

use std::{fs::File, io, os::fd::OwnedFd, time::Duration};

use async_trait::async_trait;
use tokio::net::UnixStream;

use crate::{
    device::{nic::Nic, vsock::Connector},
    sys::process::Identity,
};

pub use accelerator::Accelerator;
/// The VMM that runs all pods; another would be a folder beside it, chosen here.
pub use qemu::{program, start};

/// A MicroVM's size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    /// Virtual processors.
    pub vcpus: u32,
    /// Memory, MiB; the huge pages are part of it.
    pub memory_mb: u64,
    /// Huge pages of 2 MiB that the guest reserves when it boots.
    pub hugepages: u64,
}

/// What to boot.
#[derive(Debug, Clone)]
pub struct Plan {
    /// How its processor is run.
    pub accelerator: Accelerator,
    /// Its size.
    pub size: Size,
    /// The user and group that the VMM runs as.
    pub uid: u32,
}

/// What a MicroVM boots from and runs on.
#[derive(Debug)]
pub struct Files {
    /// The kernel, a PVH vmlinux.
    pub kernel: File,
    /// The initramfs, which holds the agent.
    pub initramfs: File,
    /// `/dev/kvm`, where it is to be used.
    pub kvm: Option<File>,
}

/// What a MicroVM is given: open descriptors, so that the VMM needs no path and no privilege.
#[derive(Debug)]
pub struct Devices {
    /// What it boots from and runs on.
    pub files: Files,
    /// A connection to the vsock backend (vhost-user).
    pub vsock: OwnedFd,
    /// How the host reaches the guest through that backend.
    pub connector: Connector,
    /// A connection to the virtio-fs daemon (vhost-user).
    pub share: OwnedFd,
    /// The scratch disk's file.
    pub scratch: File,
    /// The network devices.
    pub nics: Vec<Nic>,
}

/// A disk that is plugged into a running VM.
#[derive(Debug)]
pub struct Disk {
    /// Its unit on the guest's SCSI controller, which no other disk has; not 0.
    pub lun: u8,
    /// The block device, opened as it may be used.
    pub file: File,
    /// The VMM lets nobody write.
    pub read_only: bool,
}

/// What comes and goes while a MicroVM runs.
#[async_trait]
pub trait Disks {
    /// Plugs a disk.
    ///
    /// # Errors
    /// The VMM refuses, or is gone.
    async fn plug(&self, disk: Disk) -> io::Result<()>;

    /// Unplugs a disk.
    ///
    /// # Errors
    /// There is none, or the VMM is gone.
    async fn unplug(&self, lun: u8) -> io::Result<()>;
}

/// A MicroVM that was started.
#[async_trait]
pub trait Vm: Disks + Send + Sync {
    /// The VMM's process on the host.
    fn process(&self) -> Identity;

    /// Connects to a vsock port of the guest.
    ///
    /// # Errors
    /// Nobody listens there, or the VM is gone.
    async fn connect(&self, port: u32) -> io::Result<UnixStream>;

    /// Waits for the VM's end; says how it came.
    async fn wait(&self) -> String;

    /// The last lines on the console of a guest that has ended, or is given up, fit for an error message.
    async fn last_words(&self) -> String;

    /// Ends the VM: asks the VMM, and kills it after the time given.
    async fn stop(&self, within: Duration);
}
