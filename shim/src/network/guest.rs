//! What the guest is asked for, so that its network is like the pod's network namespace: requests that its agent passes on to
//! its kernel. Addresses, neighbours, routes and rules are asked for by the messages in which the host's kernel told them, so none of
//! their parts is lost that only the two kernels know.

use std::{collections::HashMap, io};

use a3s_box_proto::agent::NetlinkRequest;
use rtnetlink::{
    LinkUnspec,
    packet_core::{NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE, NLM_F_REQUEST, NetlinkMessage},
    packet_route::{RouteNetlinkMessage, route::RouteAttribute},
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
        let indexes = interfaces().map(|(interface, index)| (interface.link.index, index)).collect();
        for address in network.interfaces.iter().flat_map(|interface| &interface.addresses) {
            requests.settle.push(again(RouteNetlinkMessage::NewAddress(address.clone()), &indexes)?);
        }
        for (interface, index) in interfaces().filter(|(interface, _)| interface.link.is_up) {
            requests.settle.push(up(&interface.link.name, index));
        }
        for told in &network.told {
            requests.settle.push(again(told.clone(), &indexes)?);
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

/// Asks for what the host's kernel told. `indexes` are the guest's of the host's.
fn again(mut told: RouteNetlinkMessage, indexes: &HashMap<u32, u32>) -> io::Result<NetlinkRequest> {
    let moved = |index: &mut u32| {
        *index = *indexes.get(index).ok_or_else(|| {
            io::Error::other(format!(
                "a message of the host's kernel names interface {index}, which is not the pod's"
            ))
        })?;
        io::Result::Ok(())
    };
    let (what, flags) = match &mut told {
        RouteNetlinkMessage::NewAddress(address) => {
            moved(&mut address.header.index)?;
            ("address", NLM_F_REPLACE)
        }
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
        other => return Err(io::Error::other(format!("no address, neighbour, route or rule: {other:?}"))),
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
        address::AddressMessage,
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
        assert!(again(message, &HashMap::new()).unwrap_err().to_string().contains("interface 7"));
        assert!(again(RouteNetlinkMessage::NewLink(LinkMessage::default()), &indexes).is_err());
    }

    #[test]
    fn devices_become_interfaces_and_what_is_left_is_spare() {
        let at = |index| {
            let mut address = AddressMessage::default();
            address.header.index = index;
            address
        };
        let interface = |index, name: &str| Interface {
            link: Link { index, name: name.into(), mac: vec![2; 6], mtu: 1400, is_up: index == 7 },
            addresses: vec![at(index)],
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
        // lo, two addresses, eth0; the other is down on the host too.
        assert_eq!(two.settle.len(), 4);
    }
}
