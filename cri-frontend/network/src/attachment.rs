//! What a chain of plugins gave a pod.

use std::net::IpAddr;

use serde::Deserialize;
use serde_json::Value;

/// The pod's interface, as CNI's users expect it.
pub(crate) const POD_INTERFACE: &str = "eth0";

/// An interface that a plugin made or moved.
#[derive(Deserialize)]
struct Interface {
    name: String,
    /// The namespace that it is in; none for the host's.
    #[serde(default)]
    sandbox: Option<String>,
}

impl Interface {
    fn is_pods(&self) -> bool {
        self.name == POD_INTERFACE && self.sandbox.as_ref().is_some_and(|sandbox| !sandbox.is_empty())
    }
}

/// The parts of a result that are of interest here, the same in all versions from 0.3.0 to 1.1.0.
#[derive(Deserialize)]
struct Outline {
    #[serde(default)]
    interfaces: Vec<Interface>,
    #[serde(default)]
    ips: Vec<Ip>,
}

#[derive(Deserialize)]
struct Ip {
    address: String,
    #[serde(default)]
    interface: Option<i64>,
}

/// The pod's addresses in a chain's result: never none, the first IPv4 address first, as containerd orders them.
pub(crate) fn pod_ips(result: &Value) -> Result<Vec<IpAddr>, String> {
    let Outline { interfaces, ips } =
        Outline::deserialize(result).map_err(|error| format!("is malformed: {error}"))?;
    let mut addresses = Vec::new();
    for ip in ips {
        if belongs_to_pod(&ip, &interfaces)? {
            addresses.push(parse(&ip.address)?);
        }
    }
    addresses.sort_by_key(IpAddr::is_ipv6);
    if addresses.is_empty() {
        return Err(format!("gives {POD_INTERFACE} no address"));
    }
    Ok(addresses)
}

/// An address without an interface is the pod's: IPAM plugins know of no interfaces.
fn belongs_to_pod(ip: &Ip, interfaces: &[Interface]) -> Result<bool, String> {
    let Some(index) = ip.interface else { return Ok(true) };
    let interface = usize::try_from(index).ok().and_then(|index| interfaces.get(index));
    let interface = interface.ok_or_else(|| format!("puts {} on interface {index} of none", ip.address))?;
    Ok(interface.is_pods())
}

fn parse(cidr: &str) -> Result<IpAddr, String> {
    let (address, _) = cidr.split_once('/').unwrap_or((cidr, ""));
    address.parse().map_err(|_| format!("holds {cidr:?}, which is no address"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_pods_addresses_are_those_of_its_eth0_with_ipv4_first() {
        let ips = pod_ips(&json!({
            "cniVersion": "1.0.0",
            "interfaces": [
                {"name": "br0", "mac": "02:00:00:00:00:01"},
                {"name": "eth0", "mac": "02:00:00:00:00:02", "sandbox": "/run/netns/a"},
            ],
            "ips": [
                {"address": "10.9.0.1/16", "interface": 0},
                {"address": "fd00::2/64", "interface": 1, "gateway": "fd00::1"},
                {"version": "4", "address": "10.9.0.2/16", "interface": 1},
            ],
        }))
        .unwrap();
        assert_eq!(ips, ["10.9.0.2".parse::<IpAddr>().unwrap(), "fd00::2".parse().unwrap()]);
    }

    #[test]
    fn a_result_that_is_of_no_use_says_why() {
        for (result, reason) in [
            (json!({}), "no address"),
            (json!({"ips": 7}), "malformed"),
            (json!({"ips": [{"address": "10.0.0.x/8"}]}), "10.0.0.x/8"),
            (json!({"ips": [{"address": "10.0.0.1/8", "interface": 3}]}), "interface 3"),
            (
                json!({"interfaces": [{"name": "br0"}], "ips": [{"address": "10.0.0.1/8", "interface": 0}]}),
                "eth0",
            ),
        ] {
            let error = pod_ips(&result).unwrap_err();
            assert!(error.contains(reason), "{result}: {error}");
        }
    }
}
