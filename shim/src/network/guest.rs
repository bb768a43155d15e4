//! What the guest is asked for, so that its network is like the pod's network namespace: requests that its agent passes on to
//! its kernel. Neighbours, routes and rules are asked for by the messages in which the host's kernel told them, so none of
//! their parts is lost that only the two kernels know.

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use a3s_box_proto::agent::NetlinkRequest;
use rtnetlink::{
    AddressMessageBuilder, LinkUnspec,
    packet_core::{NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE, NLM_F_REQUEST, NetlinkMessage},
    packet_route::{
        RouteNetlinkMessage,
        address::{AddressAttribute, AddressFlags, AddressMessage},
        route::RouteAttribute,
    },
};

use super::{Link, PodNetwork};

/// Each network namespace's loopback device is its first.
const LOOPBACK: u32 = 1;

/// The requests, in their order.
#[derive(Debug, Default)]
pub struct Requests {
    /// Indexes of devices that the pod's network has no use for.
    pub spare: Vec<u32>,
    /// Names, hardware addresses and MTUs.
    pub identify: Vec<NetlinkRequest>,
    /// Addresses, neighbours, routes and rules.
    pub settle: Vec<NetlinkRequest>,
}

impl Requests {
    /// The first of the VM's devices, told by the guest's numbers for them, become the interfaces.
    ///
    /// # Errors
    /// A message of the host's kernel names an interface that is not the pod's.
    pub fn new(network: &PodNetwork, devices: &[u32]) -> io::Result<Self> {
        let interfaces = || network.interfaces.iter().zip(devices.iter().copied());
        let spare = devices.iter().skip(network.interfaces.len()).copied().collect();
        let mut requests = Self { spare, ..Self::default() };
        if network.interfaces.len() > 1 {
            // One may be called what another is to be called.
            requests.identify.extend(interfaces().map(|(_, index)| rename(index)));
        }
        requests.identify.extend(interfaces().map(|(interface, index)| identify(&interface.link, index)));
        requests.settle.push(up("the loopback device", LOOPBACK));
        for (interface, index) in interfaces() {
            let name = &interface.link.name;
            requests.settle.extend(interface.addresses.iter().map(|one| address(name, index, *one)));
            requests.settle.push(up(name, index));
        }
        let indexes = interfaces().map(|(interface, index)| (interface.link.index, index)).collect();
        for told in &network.told {
            requests.settle.push(again(told.clone(), &indexes).map_err(io::Error::other)?);
        }
        Ok(requests)
    }
}

fn rename(index: u32) -> NetlinkRequest {
    let change = LinkUnspec::new_with_index(index).name(format!("a3s{index}")).build();
    request(format!("rename network device {index}"), RouteNetlinkMessage::SetLink(change), 0)
}

fn identify(link: &Link, index: u32) -> NetlinkRequest {
    let mut change = LinkUnspec::new_with_index(index).name(link.name.clone());
    if !link.mac.is_empty() {
        change = change.address(link.mac.clone());
    }
    if link.mtu != 0 {
        change = change.mtu(link.mtu);
    }
    let what = format!("set name, address and MTU of {}", link.name);
    request(what, RouteNetlinkMessage::SetLink(change.build()), 0)
}

fn up(name: &str, index: u32) -> NetlinkRequest {
    let change = LinkUnspec::new_with_index(index).up().build();
    request(format!("set {name} up"), RouteNetlinkMessage::SetLink(change), 0)
}

fn address(name: &str, index: u32, (address, prefix): (IpAddr, u8)) -> NetlinkRequest {
    let mut message: AddressMessage = match address {
        IpAddr::V4(address) => {
            AddressMessageBuilder::<Ipv4Addr>::new().index(index).address(address, prefix).build()
        }
        IpAddr::V6(address) => {
            AddressMessageBuilder::<Ipv6Addr>::new().index(index).address(address, prefix).build()
        }
    };
    // The host's end of the pod has proved already that nobody else has it; a second proof takes a second. The route that
    // an address brings is among the host's, if nobody has removed it there.
    let flags = AddressFlags::Nodad | AddressFlags::Noprefixroute;
    message.attributes.push(AddressAttribute::Flags(flags));
    let what = format!("add address {address}/{prefix} to {name}");
    request(what, RouteNetlinkMessage::NewAddress(message), NLM_F_CREATE | NLM_F_REPLACE)
}

/// Asks for what the host's kernel told. `indexes` are the guest's of the host's.
fn again(mut told: RouteNetlinkMessage, indexes: &HashMap<u32, u32>) -> Result<NetlinkRequest, String> {
    let moved = |index: &mut u32| {
        *index = *indexes.get(index).ok_or_else(|| format!("a message names interface {index} of none"))?;
        Ok::<(), String>(())
    };
    let (what, flags) = match &mut told {
        RouteNetlinkMessage::NewNeighbour(neighbour) => {
            moved(&mut neighbour.header.ifindex)?;
            ("neighbour", NLM_F_REPLACE)
        }
        RouteNetlinkMessage::NewRoute(route) => {
            for attribute in &mut route.attributes {
                match attribute {
                    RouteAttribute::Oif(index) => moved(index)?,
                    RouteAttribute::MultiPath(hops) => {
                        hops.iter_mut().try_for_each(|hop| moved(&mut hop.interface_index))?;
                    }
                    _ => {}
                }
            }
            ("route", NLM_F_EXCL)
        }
        // It has names where routes have indexes.
        RouteNetlinkMessage::NewRule(_) => ("rule", NLM_F_EXCL),
        other => return Err(format!("a message is of no neighbour, route or rule: {other:?}")),
    };
    Ok(request(format!("add {what} {told:?}"), told, NLM_F_CREATE | flags))
}

fn request(what: String, message: RouteNetlinkMessage, flags: u16) -> NetlinkRequest {
    let mut message = NetlinkMessage::from(message);
    message.header.flags = NLM_F_REQUEST | NLM_F_ACK | flags;
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    NetlinkRequest { what, message: bytes, ..NetlinkRequest::default() }
}

#[cfg(test)]
mod tests {
    use rtnetlink::packet_route::{
        link::{LinkAttribute, LinkMessage},
        route::{RouteMessage, RouteNextHop},
    };

    use super::*;
    use crate::network::read::Interface;

    fn told(request: &NetlinkRequest) -> RouteNetlinkMessage {
        let message = NetlinkMessage::<RouteNetlinkMessage>::deserialize(&request.message).unwrap();
        assert_eq!(message.header.flags & NLM_F_ACK, NLM_F_ACK);
        let rtnetlink::packet_core::NetlinkPayload::InnerMessage(told) = message.payload else {
            panic!("{message:?}")
        };
        told
    }

    #[test]
    fn interfaces_get_the_guests_indexes_wherever_they_are_named() {
        let mut hop = RouteNextHop::default();
        hop.interface_index = 8;
        let mut route = RouteMessage::default();
        route.attributes = vec![RouteAttribute::Oif(7), RouteAttribute::MultiPath(vec![hop])];
        let message = RouteNetlinkMessage::NewRoute(route);
        let indexes = HashMap::from([(7, 2), (8, 3)]);
        let RouteNetlinkMessage::NewRoute(route) = told(&again(message.clone(), &indexes).unwrap()) else {
            panic!("another kind")
        };
        let RouteAttribute::MultiPath(hops) = &route.attributes[1] else { panic!("{route:?}") };
        assert_eq!((&route.attributes[0], hops[0].interface_index), (&RouteAttribute::Oif(2), 3));
        assert!(again(message, &HashMap::new()).unwrap_err().contains("interface 7"));
        assert!(again(RouteNetlinkMessage::NewLink(LinkMessage::default()), &indexes).is_err());
    }

    #[test]
    fn devices_become_interfaces_and_what_is_left_is_spare() {
        let interface = |index, name: &str| Interface {
            link: Link { index, name: name.into(), mac: vec![2; 6], mtu: 1400 },
            addresses: vec![("10.0.0.2".parse().unwrap(), 24)],
        };
        let names = |requests: &[NetlinkRequest]| {
            requests
                .iter()
                .filter_map(|request| match told(request) {
                    RouteNetlinkMessage::SetLink(link) => Some(link),
                    _ => None,
                })
                .flat_map(|link| link.attributes.into_iter().map(move |one| (link.header.index, one)))
                .filter_map(|(index, attribute)| match attribute {
                    LinkAttribute::IfName(name) => Some((index, name)),
                    _ => None,
                })
                .collect::<Vec<_>>()
        };
        let mut network = PodNetwork { interfaces: vec![interface(7, "eth0")], ..PodNetwork::default() };
        let one = Requests::new(&network, &[2, 3]).unwrap();
        assert_eq!((one.spare.as_slice(), names(&one.identify)), (&[3][..], vec![(2, "eth0".into())]));
        // lo, the address, eth0.
        assert_eq!(one.settle.len(), 3);
        network.interfaces.push(interface(9, "net1"));
        let two = Requests::new(&network, &[2, 3]).unwrap();
        let expected = [(2, "a3s2"), (3, "a3s3"), (2, "eth0"), (3, "net1")];
        assert_eq!(names(&two.identify), expected.map(|(index, name)| (index, name.to_owned())));
        assert!(two.spare.is_empty());
    }
}
