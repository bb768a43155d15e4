//! Where a pod's things lie on the host.

use std::path::PathBuf;

use a3s_box_proto::{config::Config, ids::SandboxId};

/// The pod's paths. The run directory is our frontend's bundle; containerd's bundle is elsewhere, and too long for
/// sockets.
#[derive(Debug, Clone)]
pub struct Layout {
    /// `<state_dir>/pods/<id>`: gone with the pod or a reboot.
    pub run: PathBuf,
    /// `<root_dir>/pods/<id>`: the scratch disk; gone with the pod.
    pub disk: PathBuf,
}

impl Layout {
    /// The paths of a pod.
    pub fn new(config: &Config, pod: &SandboxId) -> Self {
        Self { run: config.pod_state_dir(pod), disk: config.pod_root_dir(pod) }
    }

    /// The shim's socket.
    pub fn socket(&self) -> PathBuf {
        self.run.join("shim.sock")
    }

    /// Held by the shim that serves the pod.
    pub fn lock(&self) -> PathBuf {
        self.run.join("lock")
    }

    /// What `delete` needs to know after a shim's death.
    pub fn record(&self) -> PathBuf {
        self.run.join("record.json")
    }

    /// The shim's log.
    pub fn log(&self) -> PathBuf {
        self.run.join("shim.log")
    }

    /// The guest's console.
    pub fn console(&self) -> PathBuf {
        self.run.join("console.log")
    }

    /// The vsock backend's sockets.
    pub fn vsock(&self) -> PathBuf {
        self.run.join("vsock")
    }

    /// What the guest sees.
    pub fn share(&self) -> PathBuf {
        self.run.join("share")
    }

    /// The directory behind it.
    pub fn places(&self) -> PathBuf {
        self.run.join("share.places")
    }
}
