//! A sandbox's network: its namespace and its attachment by CNI.

use std::{net::IpAddr, sync::Arc};

use a3s_box_network::{NetworkNamespace, PodNetwork, PortMapping, Protocol};
use a3s_box_proto::cri;

use super::{NetworkMode, Sandbox};
use crate::{error::Error, node::Node};

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
    Ok(node.cni.add(&describe(sandbox)?).await?.ips)
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
        port_mappings: config.port_mappings.iter().map(port_mapping).collect::<Result<_, _>>()?,
    })
}

/// A mapping of the request, checked.
pub(super) fn port_mapping(mapping: &cri::PortMapping) -> Result<PortMapping, Error> {
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
}
