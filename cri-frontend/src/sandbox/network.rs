//! A sandbox's network: its namespace and its attachment by CNI.

use std::{net::IpAddr, sync::Arc};

use a3s_box_network::{
    Bandwidth, Dns, NetworkNamespace, PodNetwork, PortMapping, Protocol, RuntimeArguments,
};
use a3s_box_proto::cri::{self, PodSandboxConfig};

use tracing::warn;

use super::{NetworkMode, Sandbox};
use crate::{error::Error, node::Node};

/// The annotations that ask a network for addresses. The shim has nothing to do with them, and does not know them.
const IPS: &str = "a3s.box/ips";
const MAC: &str = "a3s.box/mac";

/// Makes the network namespace.
pub async fn make_namespace(node: &Node, sandbox: &Sandbox) -> Result<(), Error> {
    NetworkNamespace::create(&node.config.netns_dir, &sandbox.id).await?;
    Ok(())
}

/// Removes the network namespace, if it is there.
pub async fn remove_namespace(sandbox: Arc<Sandbox>) -> Result<(), Error> {
    Ok(sandbox.netns.remove().await?)
}

/// Attaches the namespace to the pod network: CNI ADD.
pub async fn attach(node: &Node, sandbox: &Sandbox) -> Result<Vec<IpAddr>, Error> {
    Ok(node.cni.add(&describe(sandbox)?).await?)
}

/// Detaches it: CNI DEL, by what the plugins answered at ADD. Does nothing where nothing is attached.
pub async fn detach(node: Arc<Node>, sandbox: Arc<Sandbox>) -> Result<(), Error> {
    if sandbox.record.with(|record| record.network) == NetworkMode::None {
        return Ok(());
    }
    Ok(node.cni.del(&describe(&sandbox)?).await?)
}

/// Detaches and removes the namespace.
pub async fn release(node: Arc<Node>, sandbox: Arc<Sandbox>) -> Result<(), Error> {
    detach(node, sandbox.clone()).await?;
    remove_namespace(sandbox).await
}

fn describe(sandbox: &Sandbox) -> Result<PodNetwork, Error> {
    let config = sandbox.record.with(|record| record.config.clone());
    let metadata = config.metadata.clone().unwrap_or_default();
    Ok(PodNetwork {
        sandbox_id: sandbox.id.clone(),
        namespace: metadata.namespace,
        name: metadata.name,
        uid: metadata.uid,
        netns: sandbox.netns.path().to_owned(),
        arguments: arguments(&config)?,
    })
}

/// What the network is told of a pod besides its name, checked.
pub(super) fn arguments(config: &PodSandboxConfig) -> Result<RuntimeArguments, Error> {
    let annotation = |name: &str| config.annotations.get(name);
    let wrong = |name: &str| {
        let name = name.to_owned();
        move |reason: String| Error::Invalid(format!("annotation {name}: {reason}"))
    };
    let ips = annotation(IPS).map(|list| RuntimeArguments::parse_ips(list).map_err(wrong(IPS)));
    let mac = annotation(MAC).map(|text| RuntimeArguments::parse_mac(text).map_err(wrong(MAC)));
    let dns = config.dns_config.clone();
    Ok(RuntimeArguments {
        port_mappings: config.port_mappings.iter().map(port_mapping).collect::<Result<_, _>>()?,
        bandwidth: Bandwidth::parse(annotation).map_err(Error::Invalid)?,
        dns: dns.map(|dns| Dns { servers: dns.servers, searches: dns.searches, options: dns.options }),
        ips: ips.transpose()?.unwrap_or_default(),
        mac: mac.transpose()?,
        annotations: config.annotations.clone().into_iter().collect(),
    })
}

/// Refuses addresses that tenants may not choose, or that no network could give.
pub(super) fn check_addresses(
    config: &PodSandboxConfig,
    allowed: &[String],
    mode: NetworkMode,
) -> Result<(), Error> {
    for (name, value) in config.annotations.iter().filter(|(name, _)| matches!(name.as_str(), IPS | MAC)) {
        if !allowed.contains(name) {
            let reason = format!("not allowed here; {} are (annotations.allowed)", allowed.join(", "));
            return Err(Error::Invalid(format!("annotation {name} = {value:?}: {reason}")));
        }
        if mode == NetworkMode::None {
            return Err(Error::Invalid(format!("annotation {name}: the pod asks for no network")));
        }
    }
    Ok(())
}

/// The pod without what its network alone is asked for.
pub(super) fn for_shim(config: &PodSandboxConfig) -> PodSandboxConfig {
    let mut config = config.clone();
    config.annotations.retain(|name, _| !matches!(name.as_str(), IPS | MAC));
    config
}

/// Tells of an attachment that is not as the plugins left it: after a start of the frontend, when much may have happened.
pub async fn check(node: &Node, sandbox: &Sandbox) {
    if sandbox.record.with(|record| record.network == NetworkMode::None || !record.is_ready()) {
        return;
    }
    if let Err(error) = node.cni.check(&sandbox.id).await {
        warn!(sandbox = %sandbox.id, %error, "the pod's network is not as it was made (CNI CHECK)");
    }
}

/// A mapping of the request, checked.
fn port_mapping(mapping: &cri::PortMapping) -> Result<PortMapping, Error> {
    let port = |field: &str, value: i32| {
        u16::try_from(value).map_err(|_| Error::Invalid(format!("port mapping: {field} {value} is no port")))
    };
    let protocol = match cri::Protocol::try_from(mapping.protocol) {
        Ok(cri::Protocol::Tcp) => Protocol::Tcp,
        Ok(cri::Protocol::Udp) => Protocol::Udp,
        Ok(cri::Protocol::Sctp) => Protocol::Sctp,
        Err(_) => return Err(Error::Invalid(format!("port mapping: unknown protocol {}", mapping.protocol))),
    };
    let host_ip = match mapping.host_ip.as_str() {
        "" => None,
        text => {
            Some(text.parse().map_err(|_| Error::Invalid(format!("port mapping: {text:?} is no address")))?)
        }
    };
    Ok(PortMapping {
        protocol,
        container_port: port("container_port", mapping.container_port)?,
        host_port: port("host_port", mapping.host_port)?,
        host_ip,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn port_mappings_are_checked() {
        let good =
            cri::PortMapping { container_port: 53, host_port: 5353, protocol: 1, host_ip: "::1".into() };
        let mapping = port_mapping(&good).unwrap();
        assert_eq!((mapping.protocol, mapping.host_port, mapping.container_port), (Protocol::Udp, 5353, 53));
        for bad in [
            cri::PortMapping { host_port: 70_000, ..good.clone() },
            cri::PortMapping { container_port: -1, ..good.clone() },
            cri::PortMapping { protocol: 9, ..good.clone() },
            cri::PortMapping { host_ip: "localhost".into(), ..good.clone() },
        ] {
            assert!(port_mapping(&bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn addresses_are_for_those_who_may_choose_them() {
        let mut config = PodSandboxConfig::default();
        config.annotations.insert(IPS.into(), "10.9.0.7".into());
        config.annotations.insert("kubernetes.io/egress-bandwidth".into(), "10M".into());
        let arguments = arguments(&config).unwrap();
        assert_eq!((arguments.ips, arguments.mac), (vec!["10.9.0.7".to_owned()], None));
        assert_eq!(arguments.bandwidth.unwrap().egress, Some(10_000_000));
        let allowed = [IPS.to_owned()];
        check_addresses(&config, &allowed, NetworkMode::Cni).unwrap();
        assert!(check_addresses(&config, &allowed, NetworkMode::None).is_err());
        let refusal = check_addresses(&config, &[], NetworkMode::Cni).unwrap_err().to_string();
        assert!(refusal.contains(IPS) && refusal.contains("not allowed"), "{refusal}");
        assert_eq!(for_shim(&config).annotations.len(), 1);
        for (name, value) in [(IPS, "web"), (MAC, "x"), ("kubernetes.io/ingress-bandwidth", "fast")] {
            let mut config = config.clone();
            config.annotations.insert(name.into(), value.into());
            let refusal = super::arguments(&config).unwrap_err().to_string();
            assert!(refusal.contains(name) && refusal.contains(value), "{refusal}");
        }
    }
}
