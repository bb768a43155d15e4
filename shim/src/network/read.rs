//! What CNI left in the pod's network namespace: plugins leave things there that their result does not tell.

use std::{
    fs::File,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use a3s_box_proto::agent::{Interface, Neighbour, Route};
use futures::TryStreamExt;
use rtnetlink::{
    Handle, RouteMessageBuilder,
    packet_route::{
        address::{AddressAttribute, AddressMessage, AddressScope},
        neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState},
        route::{RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteScope, RouteType},
    },
};

use super::{Link, format_mac, is_link_local, pod_link, within};

/// The network that the guest is to have.
#[derive(Debug, Default)]
pub struct PodNetwork {
    /// None, where the namespace holds none.
    pub interface: Option<Interface>,
    /// Routes by that interface, those without a gateway first.
    pub routes: Vec<Route>,
    /// Permanent neighbours.
    pub neighbours: Vec<Neighbour>,
}

/// Reads the namespace. `device_mac` is the address of the VM's device.
///
/// # Errors
/// The namespace is gone.
pub async fn read(netns: File, device_mac: String) -> io::Result<PodNetwork> {
    within(netns, |handle| async move {
        let Some(link) = pod_link(&handle).await? else { return Ok(PodNetwork::default()) };
        let addresses = addresses(&handle, &link).await?;
        let mut routes = Vec::new();
        for family in
            [RouteMessageBuilder::<Ipv4Addr>::new().build(), RouteMessageBuilder::<Ipv6Addr>::new().build()]
        {
            let messages: Vec<_> =
                handle.route().get(family).execute().try_collect().await.map_err(io::Error::other)?;
            routes.extend(messages.iter().filter_map(|message| route(message, &link)));
        }
        // A gateway must be reachable before a route may name it.
        routes.sort_by_key(|route: &Route| !route.gateway.is_empty());
        let neighbours: Vec<_> =
            handle.neighbours().get().execute().try_collect().await.map_err(io::Error::other)?;
        let neighbours = neighbours.iter().filter_map(|message| neighbour(message, &link)).collect();
        let interface = Interface {
            device_mac,
            name: link.name,
            mac: link.mac,
            mtu: link.mtu,
            addresses,
            ..Interface::default()
        };
        Ok(PodNetwork { interface: Some(interface), routes, neighbours })
    })
    .await
}

async fn addresses(handle: &Handle, link: &Link) -> io::Result<Vec<String>> {
    let messages: Vec<AddressMessage> = handle
        .address()
        .get()
        .set_link_index_filter(link.index)
        .execute()
        .try_collect()
        .await
        .map_err(io::Error::other)?;
    Ok(messages.iter().filter_map(address).collect())
}

fn address(message: &AddressMessage) -> Option<String> {
    if message.header.scope != AddressScope::Universe {
        return None;
    }
    let find = |local: bool| {
        message.attributes.iter().find_map(|attribute| match attribute {
            AddressAttribute::Local(address) if local => Some(*address),
            AddressAttribute::Address(address) if !local => Some(*address),
            _ => None,
        })
    };
    // On a point-to-point link, ADDRESS is the peer's.
    let address = find(true).or_else(|| find(false))?;
    Some(format!("{address}/{}", message.header.prefix_len))
}

fn route(message: &RouteMessage, link: &Link) -> Option<Route> {
    let header = &message.header;
    if header.table != RouteHeader::RT_TABLE_MAIN || header.kind != RouteType::Unicast {
        return None;
    }
    let mut route = Route {
        device: link.name.clone(),
        scope: u8::from(header.scope).into(),
        onlink: header.flags.contains(RouteFlags::Onlink),
        ipv6: header.address_family == rtnetlink::packet_route::AddressFamily::Inet6,
        ..Route::default()
    };
    if route.ipv6 {
        // IPv6 routes have no scope; the kernel always reports 0.
        route.scope = u8::from(RouteScope::Universe).into();
    }
    let mut by_this_link = false;
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Oif(index) => by_this_link = *index == link.index,
            RouteAttribute::Destination(to) => {
                let to = ip(to)?;
                if is_link_local(to) || to.is_multicast() {
                    return None;
                }
                route.destination = format!("{to}/{}", header.destination_prefix_length);
            }
            RouteAttribute::Gateway(gateway) => route.gateway = ip(gateway)?.to_string(),
            RouteAttribute::PrefSource(source) => route.source = ip(source)?.to_string(),
            RouteAttribute::Priority(metric) => route.metric = *metric,
            _ => {}
        }
    }
    by_this_link.then_some(route)
}

fn neighbour(message: &NeighbourMessage, link: &Link) -> Option<Neighbour> {
    if message.header.ifindex != link.index || message.header.state != NeighbourState::Permanent {
        return None;
    }
    let mut neighbour = Neighbour { device: link.name.clone(), ..Neighbour::default() };
    for attribute in &message.attributes {
        match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(address)) => {
                neighbour.address = address.to_string();
            }
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(address)) => {
                neighbour.address = address.to_string();
            }
            NeighbourAttribute::LinkLayerAddress(mac) => neighbour.mac = format_mac(mac),
            _ => {}
        }
    }
    (!neighbour.address.is_empty()).then_some(neighbour)
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(address) => Some((*address).into()),
        RouteAddress::Inet6(address) => Some((*address).into()),
        _ => None,
    }
}
