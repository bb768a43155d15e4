//! What CNI left in the pod's network namespace: plugins leave things there that their result does not tell.

use std::{
    fs::File,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use a3s_box_proto::agent::Sysctl;
use futures::TryStreamExt;
use rtnetlink::{
    Handle, IpVersion, RouteMessageBuilder,
    packet_route::{
        RouteNetlinkMessage,
        address::{AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage, AddressScope},
        neighbour::{NeighbourAttribute, NeighbourMessage, NeighbourState},
        route::{
            RouteAddress, RouteAttribute, RouteFlags, RouteMessage, RouteNextHopFlags, RouteProtocol,
            RouteType,
        },
        rule::{RuleAction, RuleAttribute, RuleFlags, RuleMessage},
    },
};

use super::{Baseline, Link, is_link_local, pod_links, within};

/// The table of the host's own addresses, which the kernel fills.
const LOCAL: u8 = 255;
/// The kernel's own rules: their priorities and tables.
const RULES: [(u32, u32); 3] = [(0, 255), (32766, 254), (32767, 253)];

/// The network that the guest is to have.
#[derive(Debug, Default)]
pub struct PodNetwork {
    /// In the order of the VM's devices.
    pub interfaces: Vec<Interface>,
    /// Permanent neighbours, routes and rules, as the kernel told them, in the order in which they can be made.
    pub(super) told: Vec<RouteNetlinkMessage>,
    /// What plugins have set.
    pub sysctls: Vec<Sysctl>,
}

/// An interface that CNI put there, with its addresses.
#[derive(Debug)]
pub struct Interface {
    pub(super) link: Link,
    /// As the kernel told them.
    pub(super) addresses: Vec<AddressMessage>,
}

impl Interface {
    /// Its addresses.
    pub fn ips(&self) -> impl Iterator<Item = IpAddr> {
        self.addresses.iter().filter_map(own)
    }
}

/// Reads the namespace.
///
/// # Errors
/// The namespace is gone, or has more interfaces than the VM has devices.
pub async fn read(netns: File, devices: usize, baseline: Baseline) -> io::Result<PodNetwork> {
    within(netns, move |handle| async move {
        let links = pod_links(&handle).await?;
        if links.len() > devices {
            return Err(too_many(&links, devices));
        }
        let names: Vec<&str> = links.iter().map(|link| link.name.as_str()).collect();
        let sysctls = baseline.changed(&names).into_iter();
        let sysctls = sysctls.map(|(name, value)| Sysctl { name, value, ..Sysctl::default() }).collect();
        let told = told(&handle, &links).await?;
        let mut interfaces = Vec::new();
        for link in links {
            interfaces.push(Interface { addresses: addresses(&handle, &link).await?, link });
        }
        Ok(PodNetwork { interfaces, told, sysctls })
    })
    .await
}

fn too_many(links: &[Link], devices: usize) -> io::Error {
    let names = links.iter().map(|link| link.name.as_str()).collect::<Vec<_>>().join(", ");
    io::Error::new(
        io::ErrorKind::Unsupported,
        format!(
            "the network gave the pod {} interfaces ({names}), and its VM has network devices for {devices}: network.spare_interfaces or \
             the annotation k8s.v1.cni.cncf.io/networks would have said before it was booted that there would be more",
            links.len()
        ),
    )
}

async fn told(handle: &Handle, links: &[Link]) -> io::Result<Vec<RouteNetlinkMessage>> {
    let is_ours = |index: u32| links.iter().any(|link| link.index == index);
    let neighbours: Vec<_> =
        handle.neighbours().get().execute().try_collect().await.map_err(io::Error::other)?;
    let mut told: Vec<RouteNetlinkMessage> =
        neighbours.into_iter().filter_map(|one| neighbour(one, &is_ours)).collect();
    let mut routes = Vec::new();
    for family in
        [RouteMessageBuilder::<Ipv4Addr>::new().build(), RouteMessageBuilder::<Ipv6Addr>::new().build()]
    {
        let all: Vec<RouteMessage> =
            handle.route().get(family).execute().try_collect().await.map_err(io::Error::other)?;
        routes.extend(all.into_iter().filter_map(|one| route(one, &is_ours)));
    }
    // A gateway must be reachable before a route may name it.
    routes.sort_by_key(has_gateway);
    told.extend(routes.into_iter().map(RouteNetlinkMessage::NewRoute));
    for family in [IpVersion::V4, IpVersion::V6] {
        // A node without one of the families has no rules of it.
        let all: Vec<_> = handle.rule().get(family).execute().try_collect().await.unwrap_or_default();
        told.extend(all.into_iter().filter_map(rule).map(RouteNetlinkMessage::NewRule));
    }
    Ok(told)
}

async fn addresses(handle: &Handle, link: &Link) -> io::Result<Vec<AddressMessage>> {
    let messages: Vec<AddressMessage> = handle
        .address()
        .get()
        .set_link_index_filter(link.index)
        .execute()
        .try_collect()
        .await
        .map_err(io::Error::other)?;
    Ok(messages.into_iter().filter_map(address).collect())
}

/// An address as it would be asked for.
fn address(mut message: AddressMessage) -> Option<AddressMessage> {
    let address = own(&message)?;
    if message.header.scope == AddressScope::Host || is_link_local(address) {
        return None;
    }
    message.header.flags = AddressHeaderFlags::empty();
    // The rest counts its use.
    message.attributes.retain(|attribute| {
        matches!(
            attribute,
            AddressAttribute::Address(_)
                | AddressAttribute::Local(_)
                | AddressAttribute::Broadcast(_)
                | AddressAttribute::Label(_)
        )
    });
    // The host's end of the pod has proved already that nobody else has it; a second proof takes a second. The route that
    // an address brings is among the host's, if nobody has removed it there.
    let flags = AddressFlags::Nodad | AddressFlags::Noprefixroute;
    message.attributes.push(AddressAttribute::Flags(flags));
    Some(message)
}

/// On a point-to-point link, ADDRESS is the peer's.
fn own(message: &AddressMessage) -> Option<IpAddr> {
    let find = |local: bool| {
        message.attributes.iter().find_map(|attribute| match attribute {
            AddressAttribute::Local(address) if local => Some(*address),
            AddressAttribute::Address(address) if !local => Some(*address),
            _ => None,
        })
    };
    find(true).or_else(|| find(false))
}

fn neighbour(mut message: NeighbourMessage, is_ours: &impl Fn(u32) -> bool) -> Option<RouteNetlinkMessage> {
    if !is_ours(message.header.ifindex) || message.header.state != NeighbourState::Permanent {
        return None;
    }
    // The rest counts its use.
    message.attributes.retain(|attribute| {
        matches!(attribute, NeighbourAttribute::Destination(_) | NeighbourAttribute::LinkLayerAddress(_))
    });
    (message.attributes.len() == 2).then_some(RouteNetlinkMessage::NewNeighbour(message))
}

/// A route as it would be asked for. Those that addresses and interfaces bring by themselves, the guest's kernel makes too.
fn route(mut message: RouteMessage, is_ours: &impl Fn(u32) -> bool) -> Option<RouteMessage> {
    let header = &mut message.header;
    let leads_somewhere = header.kind == RouteType::Unicast;
    let leads_nowhere = matches!(
        header.kind,
        RouteType::BlackHole | RouteType::Unreachable | RouteType::Prohibit | RouteType::Throw
    );
    if header.table == LOCAL
        || header.flags.contains(RouteFlags::Cloned)
        || !(leads_somewhere || leads_nowhere && header.protocol != RouteProtocol::Kernel)
    {
        return None;
    }
    header.flags &= RouteFlags::Onlink | RouteFlags::Pervasive;
    // How old it is, the number of an object that is told of besides, and the loopback that a route to nowhere is said to
    // lead to.
    message.attributes.retain(|attribute| match attribute {
        RouteAttribute::CacheInfo(_) | RouteAttribute::NhId(_) => false,
        RouteAttribute::Oif(_) => leads_somewhere,
        _ => true,
    });
    for attribute in &mut message.attributes {
        let fits = match attribute {
            RouteAttribute::Oif(index) => is_ours(*index),
            RouteAttribute::MultiPath(hops) => {
                hops.iter_mut()
                    .for_each(|hop| hop.flags &= RouteNextHopFlags::Onlink | RouteNextHopFlags::Pervasive);
                hops.iter().all(|hop| is_ours(hop.interface_index))
            }
            RouteAttribute::Destination(to) => {
                ip(to).is_some_and(|to| !is_link_local(to) && !to.is_multicast())
            }
            _ => true,
        };
        if !fits {
            return None;
        }
    }
    Some(message)
}

fn has_gateway(route: &RouteMessage) -> bool {
    let names_one = |attribute: &RouteAttribute| {
        matches!(
            attribute,
            RouteAttribute::Gateway(_) | RouteAttribute::Via(_) | RouteAttribute::MultiPath(_)
        )
    };
    route.attributes.iter().any(names_one)
}

/// A rule as it would be asked for; not one that each namespace begins with.
fn rule(mut message: RuleMessage) -> Option<RuleMessage> {
    let (mut priority, mut table) = (0, u32::from(message.header.table));
    for attribute in &message.attributes {
        match attribute {
            RuleAttribute::Priority(number) => priority = *number,
            RuleAttribute::Table(number) => table = *number,
            _ => {}
        }
    }
    message.header.flags &= RuleFlags::Invert;
    let is_kernels = message.header.action == RuleAction::ToTable && RULES.contains(&(priority, table));
    (!is_kernels).then_some(message)
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(address) => Some((*address).into()),
        RouteAddress::Inet6(address) => Some((*address).into()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_are_taken_as_they_would_be_asked_for() {
        let ours = |index: u32| index == 7;
        let with = |kind: RouteType, attributes: Vec<RouteAttribute>| {
            let mut message = RouteMessage::default();
            message.header.kind = kind;
            message.header.table = 254;
            message.header.flags = RouteFlags::Onlink | RouteFlags::Linkdown;
            message.attributes = attributes;
            route(message, &ours)
        };
        let to = |text: &str| match text.parse().unwrap() {
            IpAddr::V4(address) => RouteAttribute::Destination(RouteAddress::Inet(address)),
            IpAddr::V6(address) => RouteAttribute::Destination(RouteAddress::Inet6(address)),
        };
        let taken = with(RouteType::Unicast, vec![to("10.0.0.0"), RouteAttribute::Oif(7)]).unwrap();
        assert_eq!(taken.header.flags, RouteFlags::Onlink);
        assert_eq!(taken.attributes.len(), 2);
        let nowhere = with(RouteType::BlackHole, vec![to("10.0.0.0"), RouteAttribute::Oif(1)]).unwrap();
        assert_eq!(nowhere.attributes.len(), 1);
        for attributes in [
            vec![to("10.0.0.0"), RouteAttribute::Oif(1)],
            vec![to("fe80::"), RouteAttribute::Oif(7)],
            vec![to("ff00::"), RouteAttribute::Oif(7)],
        ] {
            assert!(with(RouteType::Unicast, attributes.clone()).is_none(), "{attributes:?}");
        }
        assert!(with(RouteType::Local, vec![RouteAttribute::Oif(7)]).is_none());
    }

    #[test]
    fn addresses_are_taken_as_they_would_be_asked_for() {
        let with = |scope: AddressScope, ip: &str| {
            let mut message = AddressMessage::default();
            message.header.scope = scope;
            message.header.flags = AddressHeaderFlags::Permanent;
            message.attributes = vec![
                AddressAttribute::Local(ip.parse().unwrap()),
                AddressAttribute::Flags(AddressFlags::Permanent),
            ];
            address(message)
        };
        let taken = with(AddressScope::Link, "169.254.7.1").unwrap();
        assert_eq!(
            (taken.header.scope, taken.header.flags),
            (AddressScope::Link, AddressHeaderFlags::empty())
        );
        assert_eq!(own(&taken), Some("169.254.7.1".parse().unwrap()));
        assert_eq!(taken.attributes.len(), 2);
        assert!(with(AddressScope::Host, "127.0.0.1").is_none());
        assert!(with(AddressScope::Link, "fe80::1").is_none());
    }

    #[test]
    fn the_kernels_own_rules_are_not_taken() {
        let with = |priority: u32, table: u8| {
            let mut message = RuleMessage::default();
            message.header.action = RuleAction::ToTable;
            message.header.table = table;
            message.attributes = vec![RuleAttribute::Priority(priority)];
            rule(message)
        };
        assert!(with(32766, 254).is_none() && with(0, 255).is_none());
        assert!(with(100, 254).is_some() && with(32766, 100).is_some());
    }
}
