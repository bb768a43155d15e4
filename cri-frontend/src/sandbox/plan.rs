//! A pod sandbox as it was asked for, checked before anything is made.

use std::{path::Path, sync::Arc};

use a3s_box_proto::{config::Config, cri::PodSandboxConfig};
use a3s_box_spec::{check_name, check_sandbox};

use super::{network, record::NetworkMode};
use crate::error::Error;

/// Where a pod's network comes from.
const NETWORK_MODE: &str = "a3s.box/network-mode";
/// The kernel's bound of a host name.
const LONGEST_HOSTNAME: usize = 64;

/// A request that can be tried.
#[derive(Debug)]
pub struct Plan {
    /// What kubelet asked for.
    pub config: Arc<PodSandboxConfig>,
    /// The runtime handler.
    pub handler: String,
    /// Where the network comes from.
    pub network: NetworkMode,
}

impl Plan {
    /// Checks a request.
    pub fn new(node: &Config, config: PodSandboxConfig, handler: String) -> Result<Self, Error> {
        names(&config)?;
        if !handler.is_empty() && !node.cri.handlers.contains(&handler) {
            let known = node.cri.handlers.join(", ");
            return Err(Error::Invalid(format!(
                "unknown runtime handler {handler:?}: this node has {known}"
            )));
        }
        check_sandbox(&config)?;
        log_directory(&config.log_directory)?;
        let mode = network_mode(&config)?;
        // Later it would be too late: what cannot be attached could not be detached either.
        network::arguments(&config)?;
        network::check_addresses(&config, &node.annotations.allowed, mode)?;
        Ok(Self { config: Arc::new(config), handler, network: mode })
    }
}

fn names(config: &PodSandboxConfig) -> Result<(), Error> {
    let Some(metadata) = &config.metadata else {
        return Err(Error::Invalid("the pod sandbox's metadata is missing".into()));
    };
    for (field, value) in
        [("name", &metadata.name), ("namespace", &metadata.namespace), ("uid", &metadata.uid)]
    {
        check_name(&format!("metadata.{field} of the pod sandbox"), value)?;
    }
    if metadata.name.is_empty() {
        return Err(Error::Invalid("metadata.name of the pod sandbox must not be empty".into()));
    }
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '.' || c == '_';
    if config.hostname.len() > LONGEST_HOSTNAME || !config.hostname.chars().all(plain) {
        let reason = format!("at most {LONGEST_HOSTNAME} letters, digits, '-', '.' and '_'");
        let shown: String = config.hostname.chars().take(LONGEST_HOSTNAME + 1).collect();
        return Err(Error::Invalid(format!("hostname {shown:?}: {reason} are accepted")));
    }
    Ok(())
}

fn log_directory(path: &str) -> Result<(), Error> {
    let path = Path::new(path);
    let plain = path.components().all(|part| part != std::path::Component::ParentDir);
    let has_nul = path.as_os_str().as_encoded_bytes().contains(&0);
    if path.as_os_str().is_empty() || (path.is_absolute() && plain && !has_nul) {
        return Ok(());
    }
    Err(Error::Invalid(format!(
        "log directory {path:?} must be an absolute path without \"..\" and NUL bytes"
    )))
}

fn network_mode(config: &PodSandboxConfig) -> Result<NetworkMode, Error> {
    match config.annotations.get(NETWORK_MODE).map(String::as_str) {
        None | Some("bridge") => Ok(NetworkMode::Cni),
        Some("none") => Ok(NetworkMode::None),
        Some(other) => Err(Error::Invalid(format!(
            "annotation {NETWORK_MODE}: {other:?} is not accepted: bridge or none is"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use a3s_box_proto::cri::{
        LinuxPodSandboxConfig, LinuxSandboxSecurityContext, NamespaceMode, NamespaceOption,
        PodSandboxMetadata, PortMapping,
    };

    use super::*;

    fn pod() -> PodSandboxConfig {
        let metadata =
            PodSandboxMetadata { name: "web".into(), namespace: "prod".into(), uid: "7".into(), attempt: 0 };
        PodSandboxConfig { metadata: Some(metadata), ..Default::default() }
    }

    fn refusal(config: PodSandboxConfig, handler: &str) -> String {
        Plan::new(&Config::default(), config, handler.into()).unwrap_err().to_string()
    }

    #[test]
    fn a_plain_pod_gets_its_network_from_cni() {
        for handler in ["", "a3s-box"] {
            let plan = Plan::new(&Config::default(), pod(), handler.into()).unwrap();
            assert_eq!(plan.network, NetworkMode::Cni);
        }
    }

    #[test]
    fn refusals_say_what_is_accepted() {
        let message = refusal(pod(), "gvisor");
        assert!(message.contains("gvisor") && message.contains("a3s-box"), "{message}");
        let mut config = pod();
        config.annotations.insert(NETWORK_MODE.into(), "brige".into());
        let message = refusal(config, "");
        assert!(
            message.contains("brige") && message.contains("bridge") && message.contains("none"),
            "{message}"
        );
        assert!(refusal(PodSandboxConfig::default(), "").contains("metadata"));
        assert!(refusal(PodSandboxConfig { log_directory: "logs".into(), ..pod() }, "").contains("absolute"));
        assert!(refusal(PodSandboxConfig { hostname: "a b".into(), ..pod() }, "").contains("hostname"));
        let mapping = PortMapping { host_port: 70_000, ..Default::default() };
        assert!(refusal(PodSandboxConfig { port_mappings: vec![mapping], ..pod() }, "").contains("70000"));
    }

    #[test]
    fn the_hosts_namespaces_are_refused_by_name() {
        let node = NamespaceMode::Node as i32;
        for (options, word) in [
            (NamespaceOption { network: node, ..Default::default() }, "network"),
            (NamespaceOption { pid: node, ..Default::default() }, "pid"),
            (NamespaceOption { ipc: node, ..Default::default() }, "ipc"),
        ] {
            let security =
                LinuxSandboxSecurityContext { namespace_options: Some(options), ..Default::default() };
            let linux = LinuxPodSandboxConfig { security_context: Some(security), ..Default::default() };
            let message = refusal(PodSandboxConfig { linux: Some(linux), ..pod() }, "");
            assert!(message.contains(word), "{message}");
        }
    }
}
