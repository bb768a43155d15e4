//! The agent's end of a container's terminal.

use std::{
    io,
    os::fd::OwnedFd,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf, unix::AsyncFd};

use crate::{
    error::{Failed, Step},
    sys::{tty, watch::watch},
};

/// A terminal, shared by its input and its output.
#[derive(Debug, Clone)]
pub struct Pty(Arc<AsyncFd<OwnedFd>>);

impl Pty {
    /// Takes the master end. Its other end goes to the process's user, who may open it by its path then.
    pub fn new(master: OwnedFd, uid: u32) -> Result<Self, Failed> {
        let peer = tty::peer(&master).step(|| "open the terminal's other end".to_owned())?;
        nix::unistd::fchown(&peer, Some(uid.into()), None)
            .step(|| "give the terminal to the user".to_owned())?;
        let flags = nix::fcntl::FcntlArg::F_SETFL(nix::fcntl::OFlag::O_NONBLOCK | nix::fcntl::OFlag::O_RDWR);
        nix::fcntl::fcntl(&master, flags).step(|| "prepare the terminal".to_owned())?;
        Ok(Self(Arc::new(
            watch(master, Interest::READABLE | Interest::WRITABLE)
                .step(|| "watch the terminal".to_owned())?,
        )))
    }

    /// Hangs it up.
    pub fn hang_up(&self) -> Result<(), Failed> {
        let peer = tty::peer(self.0.get_ref()).step(|| "open the terminal's other end".to_owned())?;
        tty::hang_up(&peer).step(|| "hang the terminal up".to_owned())
    }

    /// Sets columns and rows.
    pub fn resize(&self, size: tty::Size) -> Result<(), Failed> {
        tty::resize(self.0.get_ref(), size).step(|| "resize the terminal".to_owned())
    }
}

impl AsyncRead for Pty {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            let mut ready = ready!(self.0.poll_read_ready(context))?;
            let target = buffer.initialize_unfilled();
            match ready.try_io(|master| Ok(nix::unistd::read(master.get_ref(), target)?)) {
                Ok(Ok(count)) => {
                    buffer.advance(count);
                    return Poll::Ready(Ok(()));
                }
                // The kernel's way to say that nobody has the other end open any more.
                Ok(Err(error)) if error.raw_os_error() == Some(libc::EIO) => return Poll::Ready(Ok(())),
                Ok(Err(error)) => return Poll::Ready(Err(error)),
                Err(_would_block) => {}
            }
        }
    }
}

impl AsyncWrite for Pty {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            let mut ready = ready!(self.0.poll_write_ready(context))?;
            match ready.try_io(|master| Ok(nix::unistd::write(master.get_ref(), bytes)?)) {
                Ok(result) => return Poll::Ready(result),
                Err(_would_block) => {}
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    /// A terminal's input has no end of its own: the other end stays open for its output.
    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
