//! Connections to the loopback addresses of the pod's network namespace, whatever their port.
//!
//! Nothing of the pod listens there: its processes have the guest's loopback. containerd, though, forwards a port by
//! dialling `localhost:port` in that namespace. A program in the kernel's socket lookup gives each such connection to
//! one listener, and leaves it the address that was dialled.
//!
//! The other way is address translation (REDIRECT, and `SO_ORIGINAL_DST` for the port). It would want nf_tables' NAT
//! and connection tracking of the node, and rules that outlive a killed shim. Here nothing but these connections is
//! looked at, and all is gone with the shim's descriptors. The pod's own packets never come to a socket lookup: they
//! go from its interface to the VM's tap and back.

use std::{
    fs::File,
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener as StdListener},
    os::fd::{AsFd, AsRawFd, OwnedFd},
};

use tokio::net::{TcpListener, TcpStream};

use crate::sys::{
    bpf::{self, Instruction},
    namespace::enter_network,
    thread::apart,
};

/// All of the loopback that is a listener of ours. It keeps the namespace alive.
#[derive(Debug)]
pub struct Loopback {
    listener: TcpListener,
    _link: OwnedFd,
}

impl Loopback {
    /// Takes the loopback addresses of a namespace.
    ///
    /// # Errors
    /// The kernel is older than 5.9 or allows no bpf, or somebody else chooses the namespace's sockets.
    pub async fn take(netns: File) -> io::Result<Self> {
        let (listener, link) = apart("loopback", move || {
            enter_network(netns.as_fd())?;
            let listener = listen()?;
            let map = bpf::socket_map(listener.as_fd())?;
            let program = bpf::load_lookup(&program(map.as_raw_fd()))?;
            let link = bpf::attach_lookup(program.as_fd(), netns.as_fd())?;
            io::Result::Ok((listener, link))
        })
        .await??;
        listener.set_nonblocking(true)?;
        Ok(Self { listener: TcpListener::from_std(listener)?, _link: link })
    }

    /// The next connection, and the port that was dialled.
    ///
    /// # Errors
    /// Those of accept(2).
    pub async fn accept(&self) -> io::Result<(TcpStream, u16)> {
        let (connection, _) = self.listener.accept().await?;
        let port = connection.local_addr()?.port();
        Ok((connection, port))
    }
}

/// For both families, where the node has both. Which port it has does not matter.
fn listen() -> io::Result<StdListener> {
    let any: [SocketAddr; 2] = [(Ipv6Addr::UNSPECIFIED, 0).into(), (Ipv4Addr::LOCALHOST, 0).into()];
    StdListener::bind(&any[..])
}

/// Gives TCP connections to 127.0.0.0/8 and to ::1 to the map's socket; all else takes its course.
///
/// Registers: 0 is what a call answers, 1 to 3 are what it is given, 6 to 9 survive it, 10 is the stack's end. Where
/// things are in the context, `bpf_sk_lookup` in linux/bpf.h tells.
fn program(map: i32) -> [Instruction; 33] {
    /// Where the course is taken.
    const PASS: i16 = 31;
    let load = |target, offset| Instruction::new(0x61, target, 6, offset, 0);
    let set = |target, source| Instruction::new(0xbf, target, source, 0, 0);
    let number = |target, number| Instruction::new(0xb7, target, 0, 0, number);
    let or = |target, source| Instruction::new(0x4f, target, source, 0, 0);
    let call = |function| Instruction::new(0x85, 0, 0, 0, function);
    let pass_unless = |at: i16, number| Instruction::new(0x55, 2, 0, PASS - at - 1, number);
    let bytes = i32::from_ne_bytes;
    [
        // Is it TCP?
        set(6, 1),
        load(2, 12),
        pass_unless(2, libc::IPPROTO_TCP),
        load(2, 8),
        Instruction::new(0x15, 2, 0, 4, libc::AF_INET6),
        // Over IPv4: is it to 127.0.0.0/8?
        load(2, 40),
        Instruction::new(0x57, 2, 0, 0, bytes([255, 0, 0, 0])),
        pass_unless(7, bytes([127, 0, 0, 0])),
        Instruction::new(0x05, 0, 0, 8, 0),
        // Over IPv6: is it to ::1?
        load(2, 44),
        load(3, 48),
        or(2, 3),
        load(3, 52),
        or(2, 3),
        pass_unless(14, 0),
        load(2, 56),
        pass_unless(16, bytes([0, 0, 0, 1])),
        // `bpf_map_lookup_elem`: the map's only socket, if it is still there.
        Instruction::new(0x62, 10, 0, -4, 0),
        Instruction::new(0x18, 1, 1, 0, map),
        Instruction::new(0, 0, 0, 0, 0),
        set(2, 10),
        Instruction::new(0x07, 2, 0, 0, -4),
        call(1),
        Instruction::new(0x15, 0, 0, 7, 0),
        // `bpf_sk_assign`, then `bpf_sk_release`.
        set(7, 0),
        set(1, 6),
        set(2, 7),
        number(3, 0),
        call(124),
        set(1, 7),
        call(86),
        // `SK_PASS`.
        number(0, 1),
        Instruction::new(0x95, 0, 0, 0, 0),
    ]
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, TcpStream as StdStream};

    use rtnetlink::LinkUnspec;
    use rustix::thread::{UnshareFlags, unshare_unsafe};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::network::{link_index, within};

    /// A namespace with its loopback up.
    async fn namespace() -> File {
        let made = apart("test", || {
            // SAFETY: NEWNET does not take the file descriptor table from the thread.
            unsafe { unshare_unsafe(UnshareFlags::NEWNET) }?;
            File::open("/proc/thread-self/ns/net")
        });
        let netns = made.await.unwrap().unwrap();
        within(netns.try_clone().unwrap(), |handle| async move {
            let index = link_index(&handle, "lo").await?;
            let up = LinkUnspec::new_with_index(index).up().build();
            handle.link().set(up).execute().await.map_err(io::Error::other)
        })
        .await
        .unwrap();
        netns
    }

    async fn dial(netns: &File, address: IpAddr, port: u16) -> io::Result<TcpStream> {
        let netns = netns.try_clone().unwrap();
        let dialled = apart("test", move || {
            enter_network(netns.as_fd())?;
            StdStream::connect((address, port))
        });
        let stream = dialled.await.unwrap()?;
        stream.set_nonblocking(true)?;
        TcpStream::from_std(stream)
    }

    #[tokio::test]
    async fn each_port_of_the_loopback_is_ours_until_we_let_go() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let netns = namespace().await;
        let loopback = Loopback::take(netns.try_clone().unwrap()).await.unwrap();
        let addresses: [IpAddr; 3] =
            [Ipv4Addr::LOCALHOST.into(), Ipv4Addr::new(127, 8, 9, 1).into(), Ipv6Addr::LOCALHOST.into()];
        for (address, port) in addresses.into_iter().zip([1, 8080, 65535]) {
            let mut client = dial(&netns, address, port).await.unwrap();
            let (mut accepted, dialled) = loopback.accept().await.unwrap();
            assert_eq!(dialled, port);
            client.write_all(b"question").await.unwrap();
            client.shutdown().await.unwrap();
            let mut got = String::new();
            accepted.read_to_string(&mut got).await.unwrap();
            assert_eq!(got, "question");
        }
        drop(loopback);
        let refused = dial(&netns, Ipv4Addr::LOCALHOST.into(), 8080).await.unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
    }
}
