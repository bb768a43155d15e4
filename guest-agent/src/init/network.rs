//! The pod's network, as the host's network namespace has it: devices and addresses; `replay` does the rest.

use std::{collections::HashMap, fmt, fs, net::IpAddr, path::Path, str::FromStr};

use futures::TryStreamExt;
use rtnetlink::{
    Handle, LinkUnspec,
    packet_route::{
        address::{AddressAttribute, AddressFlags},
        link::{LinkAttribute, LinkMessage},
    },
};

use super::replay::replay;
use crate::error::{Failed, Step};

/// Where the kernel shows devices.
const DEVICES: &str = "/sys/class/net";

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
    /// Its index on the host.
    pub host_index: u32,
    /// What it shall be called.
    pub name: String,
    /// What the pod's network knows it by.
    pub mac: Option<Mac>,
    /// Bytes of the greatest packet.
    pub mtu: Option<u32>,
    /// Its addresses.
    pub addresses: Vec<Cidr>,
}

/// All of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Network {
    /// Devices.
    pub interfaces: Vec<Interface>,
    /// Neighbours, routes and rules as the host's kernel told them, in the order in which they can be made.
    pub messages: Vec<Vec<u8>>,
    /// Kernel parameters that the network's plugins have set, in order.
    pub sysctls: Vec<(String, String)>,
}

pub(super) fn failed(step: String) -> impl FnOnce(rtnetlink::Error) -> Failed {
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
    let devices = network.interfaces.iter().map(|interface| find(&links, interface));
    let devices = devices.collect::<Result<Vec<_>, _>>()?;
    for link in links.iter().filter(|link| !devices.contains(&link.header.index)) {
        take_away(link)?;
    }
    make_way(handle, &links, &network.interfaces, &devices).await?;
    let mut indexes = HashMap::new();
    for (interface, &index) in network.interfaces.iter().zip(&devices) {
        identify(handle, index, interface).await?;
        indexes.insert(interface.host_index, index);
    }
    named()?;
    for (interface, &index) in network.interfaces.iter().zip(&devices) {
        set_up(handle, index, interface).await?;
    }
    for message in &network.messages {
        replay(handle, message, &indexes).await?;
    }
    Ok(())
}

/// The index of the device that has that hardware address: the VMM's before the first call, the pod's afterwards.
fn find(links: &[LinkMessage], interface: &Interface) -> Result<u32, Failed> {
    let has = |link: &LinkMessage, mac: Mac| {
        link.attributes
            .iter()
            .any(|attribute| matches!(attribute, LinkAttribute::Address(address) if *address == mac.0))
    };
    let by = |mac: Mac| links.iter().find(|link| has(link, mac));
    let link = by(interface.device_mac).or_else(|| interface.mac.and_then(by)).ok_or_else(|| {
        Failed::because(
            format!("find the device for {}", interface.name),
            format!("no device has the address {}", interface.device_mac),
        )
    })?;
    Ok(link.header.index)
}

fn name_of(link: &LinkMessage) -> &str {
    let name = link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::IfName(name) => Some(name.as_str()),
        _ => None,
    });
    name.unwrap_or_default()
}

/// Takes a device of the VM away that the pod's network has no use for. What programs made has no device.
fn take_away(link: &LinkMessage) -> Result<(), Failed> {
    let name = name_of(link);
    let device = Path::new(DEVICES).join(name).join("device");
    let Ok(target) = fs::read_link(&device) else { return Ok(()) };
    let id = target.file_name().unwrap_or_default();
    fs::write(device.join("driver/unbind"), id.as_encoded_bytes())
        .step(|| format!("take the spare device {name} away"))
}

/// Gives names that others of the devices are to have back, where there are several.
async fn make_way(
    handle: &Handle,
    links: &[LinkMessage],
    interfaces: &[Interface],
    devices: &[u32],
) -> Result<(), Failed> {
    for (interface, &index) in interfaces.iter().zip(devices) {
        let name = links.iter().find(|link| link.header.index == index).map(name_of).unwrap_or_default();
        if name != interface.name && interfaces.iter().any(|other| other.name == name) {
            let change = LinkUnspec::new_with_index(index).name(format!("a3s{index}")).build();
            let set = handle.link().set(change).execute();
            set.await.map_err(failed(format!("take its name from {name}")))?;
        }
    }
    Ok(())
}

/// Sets name, hardware address and MTU; what is so already changes nothing.
async fn identify(handle: &Handle, index: u32, interface: &Interface) -> Result<(), Failed> {
    let mut change = LinkUnspec::new_with_index(index).name(interface.name.clone());
    if let Some(mac) = interface.mac {
        change = change.address(mac.0.to_vec());
    }
    if let Some(mtu) = interface.mtu {
        change = change.mtu(mtu);
    }
    let name = &interface.name;
    let set = handle.link().set(change.build()).execute();
    set.await.map_err(failed(format!("set name, address and MTU of {name}")))
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
    // The host's end of the pod has proved already that nobody else has it; a second proof takes a second. The route that
    // an address brings is among the host's, if nobody has removed it there.
    let flags = AddressFlags::Nodad | AddressFlags::Noprefixroute;
    request.message_mut().attributes.push(AddressAttribute::Flags(flags));
    request.execute().await.map_err(failed(format!("add address {}/{} to {name}", cidr.address, cidr.prefix)))
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
