//! What a network is told of a pod.

use std::{net::IpAddr, path::PathBuf};

use a3s_box_proto::ids::SandboxId;
use serde::{Deserialize, Serialize};

use crate::CniError;

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
    /// Ports of the host that lead to the pod.
    pub port_mappings: Vec<PortMapping>,
}

/// A port of the host that leads to a port of the pod, in the words of the `portMappings` capability.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PortMapping {
    /// The transport protocol.
    pub protocol: Protocol,
    /// The port in the pod.
    pub container_port: u16,
    /// The port of the host. 0 asks for none: such a mapping reaches no plugin.
    pub host_port: u16,
    /// The host's address, or all of them.
    #[serde(rename = "hostIP", default, skip_serializing_if = "Option::is_none")]
    pub host_ip: Option<IpAddr>,
}

/// A transport protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
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

    /// The mappings that ask for a port of the host.
    pub(crate) fn host_ports(&self) -> Vec<&PortMapping> {
        self.port_mappings.iter().filter(|mapping| mapping.host_port != 0).collect()
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
            port_mappings: Vec::new(),
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
        assert!(error.is_invalid_argument());
        assert!(error.to_string().contains("K8S_POD_NAME"), "{error}");
    }

    #[test]
    fn mappings_without_a_host_port_reach_no_plugin() {
        let mut pod = pod("/x");
        let mapping = |host_port| PortMapping {
            protocol: Protocol::Udp,
            container_port: 53,
            host_port,
            host_ip: "127.0.0.1".parse().ok(),
        };
        pod.port_mappings = vec![mapping(0), mapping(5353)];
        assert_eq!(
            serde_json::to_value(pod.host_ports()).unwrap(),
            serde_json::json!([{"protocol": "udp", "containerPort": 53, "hostPort": 5353, "hostIP": "127.0.0.1"}])
        );
    }
}
