//! The pod's network, as the host's network namespace has it: devices, addresses, routes, neighbours.

use std::{collections::HashMap, fmt, net::IpAddr, str::FromStr};

use futures::TryStreamExt;
use rtnetlink::{
    Handle, LinkUnspec, RouteMessageBuilder,
    packet_route::{
        address::{AddressAttribute, AddressFlags},
        link::{LinkAttribute, LinkMessage},
        route::RouteScope,
    },
};

use crate::error::Failed;

/// A hardware address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Mac(pub [u8; 6]);

impl FromStr for Mac {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is no MAC address");
        let mut bytes = [0; 6];
        let mut parts = text.split(':');
        for byte in &mut bytes {
            let part = parts.next().filter(|part| part.len() == 2).ok_or_else(wrong)?;
            *byte = u8::from_str_radix(part, 16).map_err(|_| wrong())?;
        }
        if parts.next().is_some() { Err(wrong()) } else { Ok(Self(bytes)) }
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// An address with the length of its network's prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cidr {
    /// The address.
    pub address: IpAddr,
    /// Bits of the network.
    pub prefix: u8,
}

impl FromStr for Cidr {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is no address in CIDR notation");
        let (address, prefix) = text.split_once('/').ok_or_else(wrong)?;
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        let prefix: u8 = prefix.parse().map_err(|_| wrong())?;
        let longest = if address.is_ipv4() { 32 } else { 128 };
        if prefix > longest { Err(wrong()) } else { Ok(Self { address, prefix }) }
    }
}

/// A network device of the pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interface {
    /// The address that the VMM gave it.
    pub device_mac: Mac,
    /// What it shall be called.
    pub name: String,
    /// What the pod's network knows it by.
    pub mac: Option<Mac>,
    /// Bytes of the greatest packet.
    pub mtu: Option<u32>,
    /// Its addresses.
    pub addresses: Vec<Cidr>,
}

/// A route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// Where it leads; none is the default route.
    pub destination: Option<Cidr>,
    /// Over whom.
    pub gateway: Option<IpAddr>,
    /// Name of the device.
    pub device: String,
    /// RT_SCOPE_*.
    pub scope: u8,
    /// The gateway is a neighbour whatever the addresses say.
    pub onlink: bool,
    /// Lower is preferred.
    pub metric: Option<u32>,
    /// The address that packets get.
    pub source: Option<IpAddr>,
    /// The family, where neither destination nor gateway tells.
    pub ipv6: bool,
}

/// A neighbour that never has to be asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Neighbour {
    /// Its address.
    pub address: IpAddr,
    /// Its hardware address.
    pub mac: Mac,
    /// Name of the device.
    pub device: String,
}

/// All of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Network {
    /// Devices.
    pub interfaces: Vec<Interface>,
    /// Routes, in the order in which they can be set.
    pub routes: Vec<Route>,
    /// Permanent neighbours.
    pub neighbours: Vec<Neighbour>,
}

fn failed(step: String) -> impl FnOnce(rtnetlink::Error) -> Failed {
    move |error| Failed::because(step, error.to_string())
}

/// Sets up the network. Doing it again with the same content changes nothing. `named` is called when the devices
/// have their names and no address yet: parameters of a device decide what becomes of its addresses.
pub async fn configure(network: &Network, named: impl FnOnce() -> Result<(), Failed>) -> Result<(), Failed> {
    if network.interfaces.is_empty() {
        return named();
    }
    let (connection, handle, _) = rtnetlink::new_connection()
        .map_err(|error| Failed::because("open a netlink socket", error.to_string()))?;
    let connection = tokio::spawn(connection);
    let outcome = configure_with(&handle, network, named).await;
    connection.abort();
    outcome
}

async fn configure_with(
    handle: &Handle,
    network: &Network,
    named: impl FnOnce() -> Result<(), Failed>,
) -> Result<(), Failed> {
    let links: Vec<LinkMessage> = handle
        .link()
        .get()
        .execute()
        .try_collect()
        .await
        .map_err(failed("list network devices".to_owned()))?;
    let mut indexes = HashMap::new();
    for interface in &network.interfaces {
        let index = give_name(handle, &links, interface).await?;
        indexes.insert(interface.name.as_str(), index);
    }
    named()?;
    for interface in &network.interfaces {
        set_up(handle, indexes[interface.name.as_str()], interface).await?;
    }
    let index_of = |device: &str| {
        indexes.get(device).copied().ok_or_else(|| {
            Failed::because(format!("find device {device:?}"), "the request has no interface of that name")
        })
    };
    for neighbour in &network.neighbours {
        handle
            .neighbours()
            .add(index_of(&neighbour.device)?, neighbour.address)
            .link_layer_address(&neighbour.mac.0)
            .replace()
            .execute()
            .await
            .map_err(failed(format!("add neighbour {}", neighbour.address)))?;
    }
    for route in &network.routes {
        add_route(handle, index_of(&route.device)?, route).await?;
    }
    Ok(())
}

/// The device that has that hardware address: the VMM's before the first call, the pod's afterwards.
fn find<'a>(links: &'a [LinkMessage], interface: &Interface) -> Option<&'a LinkMessage> {
    let has = |link: &LinkMessage, mac: Mac| {
        link.attributes
            .iter()
            .any(|attribute| matches!(attribute, LinkAttribute::Address(address) if *address == mac.0))
    };
    let by = |mac: Mac| links.iter().find(|link| has(link, mac));
    by(interface.device_mac).or_else(|| interface.mac.and_then(by))
}

async fn give_name(handle: &Handle, links: &[LinkMessage], interface: &Interface) -> Result<u32, Failed> {
    let link = find(links, interface).ok_or_else(|| {
        Failed::because(
            format!("find the device for {}", interface.name),
            format!("no device has the address {}", interface.device_mac),
        )
    })?;
    let index = link.header.index;
    let is_named = link
        .attributes
        .iter()
        .any(|attribute| matches!(attribute, LinkAttribute::IfName(name) if *name == interface.name));
    let mut change = LinkUnspec::new_with_index(index);
    if !is_named {
        change = change.name(interface.name.clone());
    }
    if let Some(mac) = interface.mac {
        change = change.address(mac.0.to_vec());
    }
    if let Some(mtu) = interface.mtu {
        change = change.mtu(mtu);
    }
    let name = &interface.name;
    let set = handle.link().set(change.build()).execute();
    set.await.map_err(failed(format!("set name, address and MTU of {name}")))?;
    Ok(index)
}

async fn set_up(handle: &Handle, index: u32, interface: &Interface) -> Result<(), Failed> {
    let name = &interface.name;
    for address in &interface.addresses {
        add_address(handle, index, name, *address).await?;
    }
    let up = LinkUnspec::new_with_index(index).up().build();
    handle.link().set(up).execute().await.map_err(failed(format!("set {name} up")))
}

async fn add_address(handle: &Handle, index: u32, name: &str, cidr: Cidr) -> Result<(), Failed> {
    let mut request = handle.address().add(index, cidr.address, cidr.prefix).replace();
    if cidr.address.is_ipv6() {
        // The host's end of the pod has proved already that nobody else has it; a second proof takes a second.
        request.message_mut().attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
    }
    request.execute().await.map_err(failed(format!("add address {}/{} to {name}", cidr.address, cidr.prefix)))
}

async fn add_route(handle: &Handle, index: u32, route: &Route) -> Result<(), Failed> {
    let step = || format!("add route {route:?}");
    let is_v6 = match (route.destination, route.gateway) {
        (Some(destination), _) => destination.address.is_ipv6(),
        (None, Some(gateway)) => gateway.is_ipv6(),
        (None, None) => route.ipv6,
    };
    let any: IpAddr =
        if is_v6 { std::net::Ipv6Addr::UNSPECIFIED.into() } else { std::net::Ipv4Addr::UNSPECIFIED.into() };
    let destination = route.destination.unwrap_or(Cidr { address: any, prefix: 0 });
    let mut message = RouteMessageBuilder::<IpAddr>::new()
        .output_interface(index)
        .scope(RouteScope::from(route.scope))
        .destination_prefix(destination.address, destination.prefix)
        .map_err(|error| mismatch(route)(&error))?;
    if let Some(gateway) = route.gateway {
        message = message.gateway(gateway).map_err(|error| mismatch(route)(&error))?;
    }
    if let Some(source) = route.source {
        message = message.pref_source(source).map_err(|error| mismatch(route)(&error))?;
    }
    if let Some(metric) = route.metric {
        message = message.priority(metric);
    }
    if route.onlink {
        message = message.onlink();
    }
    handle.route().add(message.build()).replace().execute().await.map_err(failed(step()))
}

/// rtnetlink does not export the name of its builder's error.
fn mismatch(route: &Route) -> impl FnOnce(&dyn fmt::Display) -> Failed {
    let step = format!("add route {route:?}");
    move |error| Failed::because(step, error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_parsed_or_refused() {
        assert_eq!("0a:58:0A:f4:00:02".parse::<Mac>().unwrap().to_string(), "0a:58:0a:f4:00:02");
        for bad in ["", "0a:58:0a:f4:00", "0a:58:0a:f4:00:02:03", "0a:58:0a:f4:00:2", "zz:58:0a:f4:00:02"] {
            assert!(bad.parse::<Mac>().is_err(), "{bad:?}");
        }
        assert_eq!("10.1.0.0/16".parse::<Cidr>().unwrap().prefix, 16);
        assert!("fd00::1/64".parse::<Cidr>().unwrap().address.is_ipv6());
        for bad in ["10.1.0.0", "10.1.0.0/33", "fd00::/129", "x/8", "10.0.0.1/-1"] {
            assert!(bad.parse::<Cidr>().is_err(), "{bad:?}");
        }
    }
}
