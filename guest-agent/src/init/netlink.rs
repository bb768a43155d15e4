//! rtnetlink(7), as far as passing requests on needs it.

use std::{
    io,
    os::fd::{AsRawFd, OwnedFd},
};

use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket};

/// struct nlmsghdr.
const HEADER: usize = 16;
/// An error's code follows the header; then the request is quoted, of which nobody needs to know more.
const ANSWER: usize = HEADER + size_of::<i32>();

/// A socket to this namespace's network configuration.
pub struct Netlink(OwnedFd);

impl Netlink {
    /// Opens one.
    pub fn open() -> io::Result<Self> {
        let protocol = SockProtocol::NetlinkRoute;
        Ok(Self(socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol)?))
    }

    /// Passes one request on and takes its acknowledgement. What is there already is no error.
    pub fn request(&self, message: &[u8]) -> io::Result<()> {
        check(message)?;
        send(self.0.as_raw_fd(), message, MsgFlags::empty())?;
        // The kernel has done it, or has not, when it has taken the request.
        let mut answer = [0; ANSWER];
        let length = recv(self.0.as_raw_fd(), &mut answer, MsgFlags::MSG_DONTWAIT)?;
        match outcome(&answer[..length])? {
            0 | libc::EEXIST => Ok(()),
            code => Err(io::Error::from_raw_os_error(code)),
        }
    }
}

/// A request that is one message and asks for an acknowledgement: else answers and requests would not pair.
fn check(message: &[u8]) -> io::Result<()> {
    let wrong = |why| Err(io::Error::new(io::ErrorKind::InvalidInput, why));
    let Some(header) = message.first_chunk::<HEADER>() else {
        return wrong("a netlink request is cut short");
    };
    let [a, b, c, d, _, _, e, f, ..] = *header;
    let flags = i32::from(u16::from_ne_bytes([e, f]));
    if u32::from_ne_bytes([a, b, c, d]) as usize != message.len() {
        wrong("a netlink request is not one message")
    } else if flags & libc::NLM_F_ACK == 0 {
        wrong("a netlink request asks for no acknowledgement")
    } else {
        Ok(())
    }
}

/// The code of an answer.
fn outcome(answer: &[u8]) -> io::Result<i32> {
    let kind = answer.get(4..6).map(|kind| i32::from(u16::from_ne_bytes([kind[0], kind[1]])));
    match answer.last_chunk::<4>() {
        Some(code) if answer.len() == ANSWER && kind == Some(libc::NLMSG_ERROR) => {
            Ok(i32::from_ne_bytes(*code).saturating_neg())
        }
        _ => Err(io::Error::new(io::ErrorKind::InvalidData, "netlink answers something else")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RTM_GETLINK of an index, by struct ifinfomsg.
    fn get_link(flags: i32, index: i32) -> Vec<u8> {
        let mut message = 32_u32.to_ne_bytes().to_vec();
        message.extend(libc::RTM_GETLINK.to_ne_bytes());
        message.extend((flags as u16).to_ne_bytes());
        message.extend([0; 8 + 4]);
        message.extend(index.to_ne_bytes());
        message.resize(32, 0);
        message
    }

    #[test]
    fn the_kernels_refusal_is_an_error() {
        let netlink = Netlink::open().unwrap();
        let absent = get_link(libc::NLM_F_REQUEST | libc::NLM_F_ACK, i32::MAX);
        for _ in 0..2 {
            assert_eq!(netlink.request(&absent).unwrap_err().raw_os_error(), Some(libc::ENODEV));
        }
    }

    #[test]
    fn what_would_not_be_answered_is_refused() {
        let netlink = Netlink::open().unwrap();
        let two = [get_link(libc::NLM_F_ACK, 1), get_link(libc::NLM_F_ACK, 1)].concat();
        for request in [get_link(libc::NLM_F_REQUEST, 1), two, vec![0; 3]] {
            assert_eq!(netlink.request(&request).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        }
    }
}
