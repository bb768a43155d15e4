//! The network devices: taps in the pod's network namespace, opened for the VMM.

use std::{
    fs::{File, OpenOptions},
    io,
    os::fd::{AsRawFd, OwnedFd},
};

use crate::network::{Mac, tap_name, within};

/// A network device.
#[derive(Debug)]
pub struct Nic {
    /// The tap.
    pub tap: OwnedFd,
    /// The address by which the guest tells us the device's number; the pod's own is set later.
    pub mac: Mac,
}

/// Makes so many taps and sets them up. They go with their last descriptors, the VMM's.
///
/// # Errors
/// The namespace or `/dev/net/tun` is not there.
pub async fn make(netns: File, pod: &str, count: usize) -> io::Result<Vec<Nic>> {
    let taps = within(netns, move |handle| async move {
        let mut taps = Vec::new();
        for device in 0..count {
            let name = tap_name(device);
            taps.push(open_tap(&name)?);
            let index = crate::network::link_index(&handle, &name).await?;
            let up = rtnetlink::LinkUnspec::new_with_index(index).up().build();
            handle.link().set(up).execute().await.map_err(io::Error::other)?;
        }
        Ok(taps)
    })
    .await?;
    let nics = taps.into_iter().enumerate();
    Ok(nics.map(|(device, tap)| Nic { tap: tap.into(), mac: mac_of(pod, device) }).collect())
}

fn open_tap(name: &str) -> io::Result<File> {
    let tun = OpenOptions::new().read(true).write(true).open("/dev/net/tun")?;
    // SAFETY: an all-zero `ifreq` is a valid one: a name of NULs and an empty union.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from.cast_signed();
    }
    let flags = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR | libc::IFF_TUN_EXCL;
    request.ifr_ifru.ifru_flags = flags as libc::c_short;
    // SAFETY: the request is what TUNSETIFF reads and writes, and outlives the call.
    if unsafe { libc::ioctl(tun.as_raw_fd(), libc::TUNSETIFF, &raw mut request) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(tun)
}

/// A locally administered address. It is seen by the guest only, so it need not differ between pods; it does, so
/// that a dump of packets tells which pod it is of.
fn mac_of(pod: &str, device: usize) -> Mac {
    let hash = pod.bytes().chain(device.to_le_bytes()).fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let [a, b, c, d, e, ..] = hash.to_be_bytes();
    Mac([2, a, b, c, d, e])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_local_and_of_one_station() {
        let mac = mac_of("pod", 0);
        assert!(mac.to_string().starts_with("02:"), "{mac}");
        assert_ne!(mac, mac_of("pod2", 0));
        assert_ne!(mac, mac_of("pod", 1));
    }
}
