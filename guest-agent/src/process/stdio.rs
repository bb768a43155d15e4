//! The standard streams of a process: pipes, or one terminal for all three.

use std::{
    fs::File,
    io,
    os::fd::{AsFd, OwnedFd},
    pin::Pin,
    task::{Context, Poll},
};

use nix::{
    fcntl::{FcntlArg, OFlag, fcntl},
    unistd::pipe2,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::unix::pipe,
};

use super::{
    pty::Pty,
    streams::{Input, Output},
};
use crate::error::{Failed, Step};

/// The agent's ends, for as long as the process is known.
#[derive(Debug)]
pub struct Stdio {
    /// None where the process reads /dev/null.
    pub stdin: Option<Input>,
    /// What it writes, or what its terminal shows.
    pub stdout: Option<Output>,
    /// None where it has a terminal.
    pub stderr: Option<Output>,
    /// Its terminal.
    pub terminal: Option<Pty>,
}

/// The process's ends: stdin, stdout, stderr.
#[derive(Debug)]
pub struct ProcessEnds(pub [OwnedFd; 3]);

fn open_null() -> Result<OwnedFd, Failed> {
    let null =
        File::options().read(true).write(true).open("/dev/null").step(|| "open /dev/null".to_owned())?;
    Ok(null.into())
}

/// What a pipe holds: four times what is usual, so that a process that writes much is changed for the agent less often.
const PIPE_BYTES: i32 = 256 * 1024;

/// A pipe that belongs to the process's user, who opens it again as /dev/stdout or /dev/stderr.
fn make_pipe(uid: u32, gid: u32) -> Result<(OwnedFd, OwnedFd), Failed> {
    let (read, write) = pipe2(OFlag::O_CLOEXEC).step(|| "make a pipe".to_owned())?;
    fcntl(&write, FcntlArg::F_SETPIPE_SZ(PIPE_BYTES)).step(|| "widen a pipe".to_owned())?;
    for end in [read.as_fd(), write.as_fd()] {
        nix::unistd::fchown(end, Some(uid.into()), Some(gid.into()))
            .step(|| "give a pipe to the user".to_owned())?;
    }
    Ok((read, write))
}

/// Pipes for a process of that user; without `stdin` it reads /dev/null.
pub fn pipes(uid: u32, gid: u32, stdin: bool) -> Result<(Stdio, ProcessEnds), Failed> {
    let (input, stdin) = if stdin {
        let (read, write) = make_pipe(uid, gid)?;
        let sender = pipe::Sender::from_owned_fd(write).step(|| "watch stdin".to_owned())?;
        (Some(Input::new(Sink::Pipe(Some(sender)))), read)
    } else {
        (None, open_null()?)
    };
    let output = || {
        let (read, write) = make_pipe(uid, gid)?;
        let receiver = pipe::Receiver::from_owned_fd(read).step(|| "watch an output".to_owned())?;
        Ok::<_, Failed>((Output::new(Source::Pipe(receiver)), write))
    };
    let (stdout, stdout_end) = output()?;
    let (stderr, stderr_end) = output()?;
    let stdio = Stdio { stdin: input, stdout: Some(stdout), stderr: Some(stderr), terminal: None };
    Ok((stdio, ProcessEnds([stdin, stdout_end, stderr_end])))
}

/// What a process begins with that will make a terminal of its own.
pub fn placeholders() -> Result<ProcessEnds, Failed> {
    Ok(ProcessEnds([open_null()?, open_null()?, open_null()?]))
}

impl Stdio {
    /// The streams of a terminal.
    pub fn of_terminal(terminal: Pty, stdin: bool) -> Self {
        Self {
            stdin: stdin.then(|| Input::new(Sink::Terminal(terminal.clone()))),
            stdout: Some(Output::new(Source::Terminal(terminal.clone()))),
            stderr: None,
            terminal: Some(terminal),
        }
    }
}

/// Where a process's output comes from.
#[derive(Debug)]
pub enum Source {
    /// A pipe.
    Pipe(pipe::Receiver),
    /// A terminal.
    Terminal(Pty),
}

impl AsyncRead for Source {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Pipe(pipe) => Pin::new(pipe).poll_read(context, buffer),
            Self::Terminal(terminal) => Pin::new(terminal).poll_read(context, buffer),
        }
    }
}

/// Where a process's input goes.
#[derive(Debug)]
pub enum Sink {
    /// A pipe, until the end of the input.
    Pipe(Option<pipe::Sender>),
    /// A terminal.
    Terminal(Pty),
}

impl AsyncWrite for Sink {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Pipe(Some(pipe)) => Pin::new(pipe).poll_write(context, bytes),
            Self::Pipe(None) => Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
            Self::Terminal(terminal) => Pin::new(terminal).poll_write(context, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    /// Only a closed pipe tells the process that its input has ended.
    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Self::Pipe(pipe) = self.get_mut() {
            *pipe = None;
        }
        Poll::Ready(Ok(()))
    }
}
