//! What a network is told of a pod.

use std::path::PathBuf;

use a3s_box_proto::ids::SandboxId;
use serde::{Deserialize, Serialize};

use crate::{CniError, RuntimeArguments};

/// A pod, as the plugins see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodNetwork {
    /// The sandbox: CNI's container id.
    pub sandbox_id: SandboxId,
    /// The pod's Kubernetes namespace.
    pub namespace: String,
    /// The pod's name.
    pub name: String,
    /// The pod's uid.
    pub uid: String,
    /// Where the pod's network namespace is bound.
    pub netns: PathBuf,
    /// What its plugins are told, where they take it.
    #[serde(flatten)]
    pub arguments: RuntimeArguments,
}

impl PodNetwork {
    /// `CNI_ARGS`, word for word as kubelet's users know them from containerd.
    pub(crate) fn cni_args(&self) -> Result<String, CniError> {
        let pairs = [
            ("K8S_POD_NAMESPACE", self.namespace.as_str()),
            ("K8S_POD_NAME", self.name.as_str()),
            ("K8S_POD_INFRA_CONTAINER_ID", self.sandbox_id.as_str()),
            ("K8S_POD_UID", self.uid.as_str()),
        ];
        let mut args = String::from("IgnoreUnknown=1");
        for (key, value) in pairs {
            // A ';' would add an argument of the tenant's own.
            if value.contains(|c: char| c == ';' || c.is_control()) {
                return Err(CniError::Argument {
                    sandbox: self.sandbox_id.clone(),
                    key,
                    value: value.to_owned(),
                });
            }
            args.extend([";", key, "=", value]);
        }
        Ok(args)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn pod(netns: &str) -> PodNetwork {
        PodNetwork {
            sandbox_id: "0f3e".parse().unwrap(),
            namespace: "default".into(),
            name: "web".into(),
            uid: "u-1".into(),
            netns: netns.into(),
            arguments: RuntimeArguments::default(),
        }
    }

    #[test]
    fn arguments_are_those_of_containerd() {
        assert_eq!(
            pod("/x").cni_args().unwrap(),
            "IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=web;K8S_POD_INFRA_CONTAINER_ID=0f3e;K8S_POD_UID=u-1"
        );
    }

    #[test]
    fn a_name_cannot_smuggle_in_an_argument() {
        let mut pod = pod("/x");
        pod.name = "web;K8S_POD_NAMESPACE=kube-system".into();
        let error = pod.cni_args().unwrap_err();
        assert!(matches!(error, CniError::Argument { .. }));
        assert!(error.to_string().contains("K8S_POD_NAME"), "{error}");
    }
}
