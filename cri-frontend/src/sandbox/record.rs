//! What is remembered of a pod sandbox.

use std::{net::IpAddr, sync::Arc};

use a3s_box_proto::{cri::PodSandboxConfig, ids::SandboxId};
use serde::{Deserialize, Serialize};

use crate::state::{Record, Table, wire};

/// A pod sandbox, as it stands in memory and on disk.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SandboxRecord {
    /// Its id.
    pub id: SandboxId,
    /// What kubelet asked for.
    #[serde(with = "wire")]
    pub config: Arc<PodSandboxConfig>,
    /// The runtime handler that was asked for.
    pub handler: String,
    /// Nanoseconds since the epoch.
    pub created_at: i64,
    /// The boot of the machine in which it was made: in another, all its processes are gone.
    pub boot_id: String,
    /// Where its network comes from.
    pub network: NetworkMode,
    /// Its addresses, once CNI has told them.
    pub ips: Vec<IpAddr>,
    /// Where it is in its life.
    pub phase: Phase,
}

/// Where a pod's network comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum NetworkMode {
    /// CNI's plugins.
    Cni,
    /// Nowhere: loopback only.
    None,
}

/// Where a sandbox is in its life, and what of it must be released.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Phase {
    /// RunPodSandbox works on it; whatever exists of it is undone if that fails or the frontend ends.
    Creating,
    /// The VM runs and is configured.
    Ready,
    /// The VM is gone, or must be; shim, network and files are still to be released.
    Dead {
        /// Why, in words.
        reason: String,
    },
    /// All is released; the record remains until the sandbox is removed.
    Stopped,
}

impl SandboxRecord {
    /// Containers may be made and run in it.
    pub fn is_ready(&self) -> bool {
        self.phase == Phase::Ready
    }

    /// It has been made: lists show it.
    pub fn is_listed(&self) -> bool {
        self.phase != Phase::Creating
    }

    /// The name that no two sandboxes may have at once.
    pub fn unique_name(&self) -> String {
        unique_name(&self.config)
    }
}

impl Record for SandboxRecord {
    const TABLE: Table = Table::Sandboxes;

    fn key(&self) -> &str {
        self.id.as_str()
    }
}

/// Namespace, name, uid and attempt in one; none of them holds a slash (`Plan::new` sees to it).
pub fn unique_name(config: &PodSandboxConfig) -> String {
    let metadata = config.metadata.clone().unwrap_or_default();
    format!("{}/{}/{}/{}", metadata.namespace, metadata.name, metadata.uid, metadata.attempt)
}

/// How messages call the pod: namespace and name.
pub fn display_name(config: &PodSandboxConfig) -> String {
    let metadata = config.metadata.clone().unwrap_or_default();
    format!("pod {}/{}", metadata.namespace, metadata.name)
}

#[cfg(test)]
mod tests {
    use a3s_box_proto::cri::PodSandboxMetadata;

    use super::*;

    #[test]
    fn a_record_survives_json() {
        let metadata =
            PodSandboxMetadata { name: "web".into(), namespace: "prod".into(), uid: "7".into(), attempt: 2 };
        let record = SandboxRecord {
            id: "abc".parse().unwrap(),
            config: Arc::new(PodSandboxConfig {
                metadata: Some(metadata),
                hostname: "h".into(),
                ..Default::default()
            }),
            handler: "a3s-box".into(),
            created_at: 5,
            boot_id: "b".into(),
            network: NetworkMode::Cni,
            ips: vec!["10.0.0.2".parse().unwrap(), "fd00::2".parse().unwrap()],
            phase: Phase::Dead { reason: "the VM ended".into() },
        };
        let text = serde_json::to_string(&record).unwrap();
        let back: SandboxRecord = serde_json::from_str(&text).unwrap();
        assert_eq!(back.config, record.config);
        assert_eq!(back.phase, record.phase);
        assert_eq!(back.ips, record.ips);
        assert_eq!(back.unique_name(), "prod/web/7/2");
        assert!(back.is_listed() && !back.is_ready());
    }
}
