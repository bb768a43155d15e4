//! PID 1's side of the zygote.

use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};

use tokio::io::{Interest, unix::AsyncFd};

use super::message::{self, MAX_REPLY, Reply, Request};
use crate::{
    error::{Failed, Step},
    sys::{socket, watch::watch},
};

/// The way to the zygote.
#[derive(Debug)]
pub struct Zygote {
    pid: i32,
    requests: OwnedFd,
}

impl Zygote {
    pub(super) fn new(pid: i32, requests: OwnedFd) -> Self {
        Self { pid, requests }
    }

    /// Its process: without it no container can be made.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// Asks for something. The descriptors are copied; what the caller keeps of them is its own affair.
    pub fn ask(&self, request: &Request, fds: &[BorrowedFd<'_>]) -> Result<Conversation, Failed> {
        let body = message::write(request)?;
        let (ours, theirs) = socket::pair().step(|| "make a socket for replies".to_owned())?;
        let fds: Vec<RawFd> = [body.as_raw_fd(), theirs.as_raw_fd()]
            .into_iter()
            .chain(fds.iter().map(AsRawFd::as_raw_fd))
            .collect();
        socket::send(&self.requests, &[0], &fds).step(|| "send a request to the zygote".to_owned())?;
        let replies = watch(ours, Interest::READABLE).step(|| "watch the socket for replies".to_owned())?;
        Ok(Conversation { replies })
    }
}

/// The replies to one request.
#[derive(Debug)]
pub struct Conversation {
    replies: AsyncFd<OwnedFd>,
}

impl Conversation {
    /// The next reply; none when the program runs (or when everybody who could reply has gone).
    pub async fn next(&self) -> Result<Option<(Reply, Option<OwnedFd>)>, Failed> {
        let step = || "receive a reply of a worker".to_owned();
        let mut buffer = vec![0; MAX_REPLY];
        loop {
            let mut ready = self.replies.readable().await.step(step)?;
            let received = ready.try_io(|socket| socket::receive_now(socket.get_ref(), &mut buffer));
            let (length, fds) = match received {
                Ok(outcome) => outcome.step(step)?,
                Err(_would_block) => continue,
            };
            if length == 0 {
                return Ok(None);
            }
            let reply = serde_json::from_slice(&buffer[..length]).step(step)?;
            return Ok(Some((reply, fds.into_iter().next())));
        }
    }
}

/// What a worker's answer means that does not fit.
pub fn unexpected(step: &str, reply: Option<(Reply, Option<OwnedFd>)>) -> Failed {
    match reply {
        Some((Reply::Failed(failure), _)) => failure.into(),
        Some((Reply::Program(message), _)) => Failed::because(step, message),
        Some((Reply::Made(_) | Reply::Terminal, _)) => {
            Failed::because(step, "a worker broke the order of replies")
        }
        None => Failed::because(step, "the worker ended without an answer"),
    }
}
