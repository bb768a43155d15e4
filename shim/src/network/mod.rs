//! The pod's network namespace, by netlink.

mod guest;
mod loopback;
mod read;
mod redirect;
mod sysctl;

use std::{fmt, fs::File, io, net::IpAddr, os::fd::AsFd};

use futures::TryStreamExt;
use rtnetlink::{
    Handle,
    packet_route::link::{LinkAttribute, LinkFlags},
};

pub use guest::Requests;
pub use loopback::Loopback;
pub use read::{Interface, PodNetwork, read};
pub use redirect::tie;
pub use sysctl::Baseline;

use crate::sys::{namespace::enter_network, thread::apart};

/// What the names of our taps in the pod's network namespace begin with.
const TAP: &str = "a3s-tap";

/// The name of the tap of a device.
pub fn tap_name(device: usize) -> String {
    format!("{TAP}{device}")
}

/// A hardware address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mac(pub [u8; 6]);

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// Runs netlink calls in a network namespace, on a thread of its own.
///
/// # Errors
/// The namespace cannot be entered, or the calls fail.
pub async fn within<T, F, W>(netns: File, work: W) -> io::Result<T>
where
    T: Send + 'static,
    F: Future<Output = io::Result<T>>,
    W: FnOnce(Handle) -> F + Send + 'static,
{
    apart("netns", move || {
        enter_network(netns.as_fd())?;
        tokio::runtime::Builder::new_current_thread().enable_io().build()?.block_on(async {
            let (connection, handle, _) = rtnetlink::new_connection()?;
            // The task ends with the runtime.
            tokio::spawn(connection);
            work(handle).await
        })
    })
    .await?
}

/// The index of an interface.
///
/// # Errors
/// There is none of that name.
pub async fn link_index(handle: &Handle, name: &str) -> io::Result<u32> {
    let mut links = handle.link().get().match_name(name.to_owned()).execute();
    match links.try_next().await.map_err(io::Error::other)? {
        Some(link) => Ok(link.header.index),
        None => Err(io::Error::new(io::ErrorKind::NotFound, format!("no interface {name}"))),
    }
}

/// An Ethernet interface that CNI put there.
#[derive(Debug, Clone)]
struct Link {
    index: u32,
    name: String,
    mac: Vec<u8>,
    mtu: u32,
    is_up: bool,
}

/// The pod's interfaces: the Ethernet ones besides our taps, in the order in which they were made. A namespace may hold
/// others by itself (`lo`, `tunl0`).
async fn pod_links(handle: &Handle) -> io::Result<Vec<Link>> {
    let links: Vec<_> = handle.link().get().execute().try_collect().await.map_err(io::Error::other)?;
    let mut found: Vec<Link> = Vec::new();
    for message in links {
        if message.header.link_layer_type != rtnetlink::packet_route::link::LinkLayerType::Ether {
            continue;
        }
        let is_up = message.header.flags.contains(LinkFlags::Up);
        let mut link =
            Link { index: message.header.index, name: String::new(), mac: Vec::new(), mtu: 0, is_up };
        for attribute in message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => link.name = name,
                LinkAttribute::Mtu(mtu) => link.mtu = mtu,
                LinkAttribute::Address(address) => link.mac = address,
                _ => {}
            }
        }
        if !link.name.starts_with(TAP) {
            found.push(link);
        }
    }
    found.sort_by_key(|link| link.index);
    Ok(found)
}

/// How many interfaces the namespace has now.
///
/// # Errors
/// It is gone.
pub async fn count(netns: File) -> io::Result<usize> {
    within(netns, |handle| async move { Ok(pod_links(&handle).await?.len()) }).await
}

/// An address that the guest's kernel makes by itself, from the same MAC.
fn is_link_local(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(address) if address.is_unicast_link_local())
}
