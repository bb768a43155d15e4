//! Network devices, by the ioctls of netdevice(7).

use std::{
    ffi::CStr,
    io,
    os::fd::{AsRawFd, OwnedFd},
};

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

/// A network device that the VMM gave the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Device {
    /// The kernel's number for it.
    pub index: u32,
    /// Its hardware address.
    pub mac: [u8; 6],
}

/// Those that the kernel has found at boot. It has named them eth0 onward.
pub fn found() -> io::Result<Vec<Device>> {
    let socket = any_socket()?;
    let mut devices = Vec::new();
    loop {
        let mut request = empty();
        for (target, byte) in request.ifr_name.iter_mut().zip(format!("eth{}", devices.len()).bytes()) {
            *target = byte as libc::c_char;
        }
        if !ask(&socket, libc::SIOCGIFINDEX, &mut request)? {
            return Ok(devices);
        }
        // SAFETY: the call that has just succeeded fills in this one of the union.
        let index = unsafe { request.ifr_ifru.ifru_ifindex };
        if !ask(&socket, libc::SIOCGIFHWADDR, &mut request)? {
            return Ok(devices);
        }
        // SAFETY: as above.
        let address = unsafe { request.ifr_ifru.ifru_hwaddr }.sa_data;
        let mac = std::array::from_fn(|at| address[at].cast_unsigned());
        devices.push(Device { index: index.cast_unsigned(), mac });
    }
}

/// What a device is called. None: it is not there.
pub fn name(index: u32) -> io::Result<Option<String>> {
    let mut request = empty();
    request.ifr_ifru.ifru_ifindex = index.cast_signed();
    if !ask(&any_socket()?, libc::SIOCGIFNAME, &mut request)? {
        return Ok(None);
    }
    let bytes = request.ifr_name.map(libc::c_char::cast_unsigned);
    let name = CStr::from_bytes_until_nul(&bytes).map_err(io::Error::other)?;
    Ok(Some(name.to_string_lossy().into_owned()))
}

fn any_socket() -> io::Result<OwnedFd> {
    Ok(socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?)
}

fn empty() -> libc::ifreq {
    // SAFETY: all-zero is a valid request.
    unsafe { std::mem::zeroed() }
}

/// False: there is no such device.
fn ask(socket: &OwnedFd, question: libc::Ioctl, request: &mut libc::ifreq) -> io::Result<bool> {
    // SAFETY: the request is ours and has the layout that these calls read and write.
    if unsafe { libc::ioctl(socket.as_raw_fd(), question, std::ptr::from_mut(request)) } == 0 {
        return Ok(true);
    }
    let error = io::Error::last_os_error();
    if error.raw_os_error() == Some(libc::ENODEV) || error.raw_os_error() == Some(libc::ENXIO) {
        Ok(false)
    } else {
        Err(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_has_a_name_or_is_not_there() {
        assert_eq!(name(1).unwrap().as_deref(), Some("lo"));
        assert_eq!(name(i32::MAX as u32).unwrap(), None);
    }
}
