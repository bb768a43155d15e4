//! Whether pods could be made now, and what is missing: looked up anew each time. Only CNI plugins are run, those that know the
//! question.

use std::path::{Path, PathBuf};

use a3s_box_image::ImageStore;
use a3s_box_proto::{
    accelerator::{Choice, kvm_is_usable},
    config::{Accelerator, Config},
};
use rustix::fs::{Access, access};
use serde_json::{Value, json};

use super::{Node, blocking::blocking, files::read_json};
use crate::error::Error;

/// One of the CRI's conditions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condition {
    /// It holds.
    pub met: bool,
    /// One CamelCase word, where it does not hold.
    pub reason: &'static str,
    /// What is missing, or what there is to know.
    pub message: String,
}

/// The node's condition.
#[derive(Debug)]
pub struct Health {
    /// A MicroVM can be booted.
    pub runtime: Condition,
    /// A pod can be attached to a network.
    pub network: Condition,
    /// How VMs would be run: "kvm" or "tcg", or nothing.
    pub accelerator: Option<&'static str>,
}

/// Looks at files and devices, and asks the network's plugins.
pub async fn check(node: &Node) -> Result<Health, Error> {
    let network = match node.cni.status().await {
        Ok(network) => Condition {
            met: true,
            reason: "",
            message: format!("network {:?} of {}", network.name, network.file.display()),
        },
        Err(error) => Condition { met: false, reason: "NetworkPluginNotReady", message: error.to_string() },
    };
    let config = node.config.clone();
    blocking(move || {
        let accelerator = accelerator(&config);
        let runtime = runtime(&config, accelerator.as_ref());
        Health { runtime, network, accelerator: accelerator.ok().map(Choice::name) }
    })
    .await
}

/// What belongs to the guest image, as its builder wrote it down.
pub async fn manifest(node: &Node) -> Result<Value, Error> {
    let path = node.config.vm.manifest.clone();
    blocking(move || match read_json(&path) {
        Ok(Some(manifest)) => manifest,
        Ok(None) => json!({ "missing": path }),
        Err(error) => json!({ "error": error.to_string() }),
    })
    .await
}

fn runtime(config: &Config, accelerator: Result<&Choice, &String>) -> Condition {
    let mut missing: Vec<String> = needed(config).into_iter().filter_map(|file| file.problem()).collect();
    missing.extend(ImageStore::obstacle().map(str::to_owned));
    if let Err(reason) = accelerator {
        missing.push(reason.clone());
    }
    if !missing.is_empty() {
        return Condition { met: false, reason: "RuntimeNotReady", message: missing.join("; ") };
    }
    let message = match accelerator {
        Ok(Choice::Tcg) => "MicroVMs run under TCG, an emulator that is no security boundary".to_owned(),
        _ => String::new(),
    };
    Condition { met: true, reason: "", message }
}

struct Needed {
    what: &'static str,
    key: &'static str,
    path: PathBuf,
    access: Access,
}

impl Needed {
    fn problem(&self) -> Option<String> {
        let error = access(&self.path, self.access).err()?;
        let (what, key, path) = (self.what, self.key, self.path.display());
        Some(format!("{what} {path} ({key}) is not usable: {error}"))
    }
}

fn needed(config: &Config) -> Vec<Needed> {
    let file = |what, key, path: &Path, access| Needed { what, key, path: path.to_owned(), access };
    let run = Access::EXEC_OK;
    let read = Access::READ_OK;
    vec![
        file("the shim", "cri.shim", &config.cri.shim, run),
        file("QEMU", "vm.qemu", &config.vm.qemu, run),
        file("the guest kernel", "vm.kernel", &config.vm.kernel, read),
        file("the guest's initramfs", "vm.initramfs", &config.vm.initramfs, read),
        file("virtiofsd", "helpers.virtiofsd", &config.helpers.virtiofsd, run),
        file("vhost-device-vsock", "helpers.vhost_device_vsock", &config.helpers.vhost_device_vsock, run),
        file("mkfs.erofs", "helpers.mkfs_erofs", &config.helpers.mkfs_erofs, run),
        file("mkfs.ext4", "helpers.mkfs_ext4", &config.helpers.mkfs_ext4, run),
    ]
}

/// What is forced is tried here as well: pods that cannot boot are no news of a node that is ready.
fn accelerator(config: &Config) -> Result<Choice, String> {
    if config.vm.accelerator == Accelerator::Kvm {
        kvm_is_usable().map_err(|reason| format!("KVM cannot be used: {reason}"))?;
    }
    Choice::of(&config.vm)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_is_missing_is_named_with_its_key() {
        let mut config = Config::default();
        config.vm.kernel = "/nowhere/vmlinux".into();
        config.vm.accelerator = Accelerator::Tcg;
        let condition = runtime(&config, Ok(&Choice::Tcg));
        assert!(!condition.met);
        assert!(condition.message.contains("/nowhere/vmlinux") && condition.message.contains("vm.kernel"));
        let condition = runtime(&config, Err(&"no accelerator: x".to_owned()));
        assert!(condition.message.contains("no accelerator"));
    }
}
