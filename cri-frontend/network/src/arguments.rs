//! What a pod gives to those plugins whose configuration says that they take it: CNI's capabilities.
//!
//! The names and forms are those of CNI's conventions, and of containerd for the pod's annotations.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr},
};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::Bandwidth;

/// The arguments of a pod, some of which its network may not take.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RuntimeArguments {
    /// Ports of the host that lead to the pod.
    pub port_mappings: Vec<PortMapping>,
    /// How fast it may be.
    pub bandwidth: Option<Bandwidth>,
    /// Whom it asks for names.
    pub dns: Option<Dns>,
    /// The addresses that it is to have, each with or without a prefix length.
    pub ips: Vec<String>,
    /// The hardware address that it is to have.
    pub mac: Option<String>,
    /// All of the pod's annotations.
    pub annotations: BTreeMap<String, String>,
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

/// The pod's resolver, in the words of the `dns` capability.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dns {
    /// Addresses.
    pub servers: Vec<String>,
    /// Domains.
    pub searches: Vec<String>,
    /// Options of the resolver.
    pub options: Vec<String>,
}

/// What becomes of an argument that no plugin of the network takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Untaken {
    /// Networks may obey it without being told of it here, as Cilium does host ports and bandwidths.
    Warned,
    /// The pod would have something else than it asks for.
    Refused,
    /// It is told to whoever wants to know.
    Ignored,
}

/// An argument by the name of its capability.
pub(crate) struct Argument {
    pub capability: &'static str,
    pub value: Value,
    pub untaken: Untaken,
}

impl RuntimeArguments {
    /// What there is to tell, by capability.
    pub(crate) fn all(&self) -> Vec<Argument> {
        let ports = self.host_ports();
        let given = [
            ("portMappings", (!ports.is_empty()).then(|| json!(ports)), Untaken::Warned),
            ("bandwidth", self.bandwidth.map(|bandwidth| json!(bandwidth)), Untaken::Warned),
            ("dns", self.dns.as_ref().map(|dns| json!(dns)), Untaken::Ignored),
            ("ips", (!self.ips.is_empty()).then(|| json!(self.ips)), Untaken::Refused),
            ("mac", self.mac.as_ref().map(|mac| json!(mac)), Untaken::Refused),
            ("io.kubernetes.cri.pod-annotations", Some(json!(self.annotations)), Untaken::Ignored),
        ];
        let told = given.into_iter().filter_map(|(capability, value, untaken)| {
            value.map(|value| Argument { capability, value, untaken })
        });
        told.collect()
    }

    /// The mappings that ask for a port of the host.
    fn host_ports(&self) -> Vec<&PortMapping> {
        self.port_mappings.iter().filter(|mapping| mapping.host_port != 0).collect()
    }

    /// Reads the addresses of a list that is separated by commas.
    ///
    /// # Errors
    /// One of them is none; the message says which.
    pub fn parse_ips(list: &str) -> Result<Vec<String>, String> {
        let address = |text: &str| {
            let (address, prefix) = text.split_once('/').map_or((text, None), |(a, p)| (a, Some(p)));
            let parsed: IpAddr = address.parse().ok()?;
            let longest = if parsed.is_ipv4() { 32 } else { 128 };
            let fits = prefix.is_none_or(|prefix| prefix.parse().is_ok_and(|prefix: u8| prefix <= longest));
            let usable = !parsed.is_multicast() && !parsed.is_unspecified() && !parsed.is_loopback();
            (fits && usable && parsed != Ipv4Addr::BROADCAST).then(|| text.to_owned())
        };
        let parsed = list.split(',').map(str::trim);
        parsed.map(|text| address(text).ok_or_else(|| format!("{text:?} is no pod's address"))).collect()
    }

    /// Reads a hardware address of one station.
    ///
    /// # Errors
    /// It is none.
    pub fn parse_mac(text: &str) -> Result<String, String> {
        let byte = |part: &str| (part.len() == 2).then(|| u8::from_str_radix(part, 16).ok()).flatten();
        let bytes: Option<Vec<u8>> = text.split(':').map(byte).collect();
        match bytes.as_deref() {
            // The lowest bit of the first byte says that it is a group's.
            Some([first, _, _, _, _, _]) if first & 1 == 0 => Ok(text.to_ascii_lowercase()),
            _ => Err(format!("{text:?} is no hardware address of one station, as in 0a:58:0a:f4:00:02")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_have_the_forms_of_cnis_conventions() {
        let mapping = |host_port| PortMapping {
            protocol: Protocol::Udp,
            container_port: 53,
            host_port,
            host_ip: "127.0.0.1".parse().ok(),
        };
        let arguments = RuntimeArguments {
            // The first reaches no plugin.
            port_mappings: vec![mapping(0), mapping(5353)],
            bandwidth: Some(Bandwidth { ingress: Some(1_000_000), egress: None }),
            dns: Some(Dns { servers: vec!["10.0.0.10".into()], searches: vec![], options: vec![] }),
            ips: vec!["10.9.0.7".into()],
            mac: Some("0a:58:0a:f4:00:02".into()),
            annotations: [("a".to_owned(), "b".to_owned())].into(),
        };
        let told: BTreeMap<_, _> =
            arguments.all().into_iter().map(|argument| (argument.capability, argument.value)).collect();
        assert_eq!(
            json!(told),
            json!({
                "portMappings":
                    [{"protocol": "udp", "containerPort": 53, "hostPort": 5353, "hostIP": "127.0.0.1"}],
                "bandwidth": {"ingressRate": 1_000_000, "ingressBurst": 4_294_967_295_u64},
                "dns": {"servers": ["10.0.0.10"], "searches": [], "options": []},
                "ips": ["10.9.0.7"],
                "mac": "0a:58:0a:f4:00:02",
                "io.kubernetes.cri.pod-annotations": {"a": "b"},
            })
        );
        let nothing: Vec<_> = RuntimeArguments::default().all().iter().map(|a| a.capability).collect();
        assert_eq!(nothing, ["io.kubernetes.cri.pod-annotations"]);
    }

    #[test]
    fn addresses_are_those_that_a_pod_can_have() {
        let ips = RuntimeArguments::parse_ips("10.9.0.7/24, fd00::7");
        assert_eq!(ips.unwrap(), ["10.9.0.7/24", "fd00::7"]);
        for bad in ["", "10.9.0.7,", "10.9.0.7/33", "fd00::7/129", "web", "127.0.0.1", "224.0.0.1", "::"] {
            assert!(RuntimeArguments::parse_ips(bad).is_err(), "{bad:?}");
        }
        assert_eq!(RuntimeArguments::parse_mac("0A:58:0a:f4:00:02").unwrap(), "0a:58:0a:f4:00:02");
        for bad in ["", "0a:58:0a:f4:00", "0a:58:0a:f4:00:02:03", "0b:58:0a:f4:00:02", "0a58:0a:f4:00:02"] {
            assert!(RuntimeArguments::parse_mac(bad).is_err(), "{bad:?}");
        }
    }
}
