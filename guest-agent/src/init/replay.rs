//! Neighbours, routes and rules of the host's network namespace, made again by the messages in which its kernel told them:
//! so none of their parts is lost that only the two kernels know.

use std::{collections::HashMap, io};

use futures::StreamExt;
use rtnetlink::{
    Handle,
    packet_core::{
        NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload,
    },
    packet_route::{RouteNetlinkMessage, route::RouteAttribute},
};

use super::network::failed;
use crate::error::Failed;

/// Makes again what a message tells. What is there already is left alone. `indexes` are the guest's of the host's.
pub async fn replay(handle: &Handle, bytes: &[u8], indexes: &HashMap<u32, u32>) -> Result<(), Failed> {
    let unreadable = |why: String| Failed::because("read a message of the host's netlink", why);
    let message = NetlinkMessage::<RouteNetlinkMessage>::deserialize(bytes)
        .map_err(|error| unreadable(error.to_string()))?;
    let NetlinkPayload::InnerMessage(mut told) = message.payload else {
        return Err(unreadable("it tells nothing".into()));
    };
    let (what, flags) = relocate(&mut told, indexes).map_err(unreadable)?;
    let step = format!("add {what} {told:?}");
    let mut request = NetlinkMessage::from(told);
    request.header.flags = NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | flags;
    let mut answers = handle.clone().request(request).map_err(failed(step.clone()))?;
    while let Some(answer) = answers.next().await {
        if let NetlinkPayload::Error(error) = answer.payload
            && error.code.is_some()
            && error.to_io().kind() != io::ErrorKind::AlreadyExists
        {
            return Err(Failed::because(step, error.to_io().to_string()));
        }
    }
    Ok(())
}

/// Puts the guest's indexes of interfaces in the places of the host's; says what it is, and how it is added.
fn relocate(
    message: &mut RouteNetlinkMessage,
    indexes: &HashMap<u32, u32>,
) -> Result<(&'static str, u16), String> {
    let moved = |index: &mut u32| {
        *index = *indexes.get(index).ok_or_else(|| format!("it names interface {index} of none"))?;
        Ok::<(), String>(())
    };
    match message {
        RouteNetlinkMessage::NewNeighbour(neighbour) => {
            moved(&mut neighbour.header.ifindex)?;
            Ok(("neighbour", NLM_F_REPLACE))
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
            Ok(("route", NLM_F_EXCL))
        }
        // It has names where routes have indexes.
        RouteNetlinkMessage::NewRule(_) => Ok(("rule", NLM_F_EXCL)),
        _ => Err("it is of no neighbour, route or rule".into()),
    }
}

#[cfg(test)]
mod tests {
    use rtnetlink::packet_route::{
        link::LinkMessage,
        route::{RouteMessage, RouteNextHop},
    };

    use super::*;

    #[test]
    fn interfaces_get_the_guests_indexes_wherever_they_are_named() {
        let mut hop = RouteNextHop::default();
        hop.interface_index = 8;
        let mut route = RouteMessage::default();
        route.attributes = vec![RouteAttribute::Oif(7), RouteAttribute::MultiPath(vec![hop])];
        let mut message = RouteNetlinkMessage::NewRoute(route);
        let indexes = HashMap::from([(7, 2), (8, 3)]);
        assert_eq!(relocate(&mut message, &indexes).unwrap().0, "route");
        let RouteNetlinkMessage::NewRoute(route) = &message else { panic!("{message:?}") };
        let RouteAttribute::MultiPath(hops) = &route.attributes[1] else { panic!("{route:?}") };
        assert_eq!((&route.attributes[0], hops[0].interface_index), (&RouteAttribute::Oif(2), 3));
        assert!(relocate(&mut message.clone(), &HashMap::new()).unwrap_err().contains("interface 2"));
        assert!(relocate(&mut RouteNetlinkMessage::NewLink(LinkMessage::default()), &indexes).is_err());
    }
}
