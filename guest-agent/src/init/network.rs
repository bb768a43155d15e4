//! The pod's network, as the host's network namespace has it. The shim knows both sides and asks in the kernel's own words;
//! here they are passed on. No netlink library: an emulated processor pays for each instruction that it meets.

use std::{fs, path::Path};

use super::netlink::Netlink;
use crate::{
    error::{Failed, Step},
    sys::device,
};

/// Where the kernel shows devices.
const DEVICES: &str = "/sys/class/net";

/// A request of the host's, and what it is in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// For errors.
    pub what: String,
    /// rtnetlink's.
    pub message: Vec<u8>,
}

/// All of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Network {
    /// Indexes of devices that the pod has no use for.
    pub spare: Vec<u32>,
    /// Names, hardware addresses and MTUs.
    pub identify: Vec<Request>,
    /// Addresses, neighbours, routes and rules, in order.
    pub settle: Vec<Request>,
    /// Kernel parameters that the network's plugins have set, in order.
    pub sysctls: Vec<(String, String)>,
}

/// Gives the devices their names. They have no address yet: parameters of a device decide what becomes of its
/// addresses. Doing it again with the same content changes nothing.
pub fn identify(network: &Network) -> Result<(), Failed> {
    network.spare.iter().try_for_each(|index| take_away(*index))?;
    ask(&network.identify)
}

/// Gives them addresses, neighbours, routes and rules. Doing it again with the same content changes nothing.
pub fn settle(network: &Network) -> Result<(), Failed> {
    ask(&network.settle)
}

fn ask(requests: &[Request]) -> Result<(), Failed> {
    let netlink = Netlink::open().step(|| "open a netlink socket".to_owned())?;
    let one = |request: &Request| netlink.request(&request.message).step(|| request.what.clone());
    requests.iter().try_for_each(one)
}

/// Takes a device away, if it is still there.
fn take_away(index: u32) -> Result<(), Failed> {
    let step = || format!("take the spare network device {index} away");
    let Some(name) = device::name(index).step(step)? else { return Ok(()) };
    let device = Path::new(DEVICES).join(name).join("device");
    let target = fs::read_link(&device).step(step)?;
    let id = target.file_name().unwrap_or_default();
    fs::write(device.join("driver/unbind"), id.as_encoded_bytes()).step(step)
}
