//! A process that serves one request.

use std::os::fd::OwnedFd;

use nix::sys::socket::{SockType, getsockopt, sockopt};

use super::{
    create, exec,
    message::{self, During, Reply, Request, reply},
    pause,
};

/// Its whole life; returns its exit code.
pub fn answer(fds: Vec<OwnedFd>) -> i32 {
    let mut fds = fds.into_iter();
    let (Some(request), Some(replies)) = (fds.next(), fds.next()) else { return 1 };
    if !is_message_socket(&replies) {
        return 1;
    }
    let outcome = message::read(request).during("read the request").and_then(|request| match request {
        Request::Create(request) => create::run(&request, fds, &replies),
        Request::Exec(request) => exec::run(&request, fds, &replies),
        Request::Pause => pause::run(&replies),
    });
    match outcome {
        Ok(()) => 0,
        Err(failure) => {
            let _ = reply(&replies, &Reply::Failed(failure), None);
            1
        }
    }
}

/// No order of descriptors is trusted blindly.
fn is_message_socket(fd: &OwnedFd) -> bool {
    getsockopt(fd, sockopt::SockType).is_ok_and(|kind| kind == SockType::SeqPacket)
}
