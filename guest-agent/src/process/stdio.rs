//! The standard streams of a process: pipes, or one terminal for all three.

use std::{
    fs::File,
    io,
    os::fd::{AsFd, OwnedFd},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use a3s_box_proto::stream::Taken;
use nix::{
    fcntl::{FcntlArg, OFlag, fcntl},
    unistd::pipe2,
};
use tokio::{
    io::{AsyncReadExt, AsyncWrite},
    net::unix::pipe,
};

use super::{
    pty::Pty,
    streams::{Input, Output},
};
use crate::{
    error::{Failed, Step},
    stream::{Bulk, Flow},
};

/// The agent's ends, for as long as the process is known.
#[derive(Debug)]
pub struct Stdio {
    /// None where the process reads /dev/null.
    pub stdin: Option<Input>,
    /// What it writes, or what its terminal shows; none where it is /dev/null.
    pub stdout: Option<Output>,
    /// None where it has a terminal, too.
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

/// What a pipe holds: as much as it may, so that a process that writes much is changed for the agent seldom.
const PIPE_BYTES: i32 = 1024 * 1024;

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

/// Which streams of a process the host has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Streams {
    /// What it reads.
    pub stdin: bool,
    /// What it writes.
    pub stdout: bool,
    /// What it writes of errors.
    pub stderr: bool,
}

/// Pipes for a process of that user; what the host does not have is /dev/null.
pub fn pipes(uid: u32, gid: u32, streams: Streams) -> Result<(Stdio, ProcessEnds), Failed> {
    let (input, stdin) = if streams.stdin {
        let (read, write) = make_pipe(uid, gid)?;
        let sender = pipe::Sender::from_owned_fd(write).step(|| "watch stdin".to_owned())?;
        (Some(Input::new(Sink::Pipe(Some(sender)))), read)
    } else {
        (None, open_null()?)
    };
    let output = |wanted: bool| {
        if !wanted {
            return Ok((None, open_null()?));
        }
        let (read, write) = make_pipe(uid, gid)?;
        let receiver = pipe::Receiver::from_owned_fd(read).step(|| "watch an output".to_owned())?;
        Ok::<_, Failed>((Some(Output::new(Source::Pipe(Flow::new(receiver)))), write))
    };
    let (stdout, stdout_end) = output(streams.stdout)?;
    let (stderr, stderr_end) = output(streams.stderr)?;
    let stdio = Stdio { stdin: input, stdout, stderr, terminal: None };
    Ok((stdio, ProcessEnds([stdin, stdout_end, stderr_end])))
}

/// What a process begins with that will make a terminal of its own.
pub fn placeholders() -> Result<ProcessEnds, Failed> {
    Ok(ProcessEnds([open_null()?, open_null()?, open_null()?]))
}

impl Stdio {
    /// The streams of a terminal.
    fn of_terminal(terminal: Pty, stdin: bool) -> Self {
        Self {
            stdin: stdin.then(|| Input::new(Sink::Terminal(terminal.clone()))),
            stdout: Some(Output::new(Source::Terminal(terminal.clone()))),
            stderr: None,
            terminal: Some(terminal),
        }
    }

    /// Those of a terminal whose master end its process should have sent.
    pub fn of_sent_terminal(master: Option<OwnedFd>, uid: u32, stdin: bool) -> Result<Self, Failed> {
        let master = master.ok_or_else(|| Failed::because("open a terminal", "the process sent none"))?;
        Ok(Self::of_terminal(Pty::new(master, uid)?, stdin))
    }
}

/// Where a process's output comes from.
#[derive(Debug)]
pub enum Source {
    /// A pipe.
    Pipe(Flow<pipe::Receiver>),
    /// A terminal.
    Terminal(Pty),
}

impl Source {
    /// Takes what comes next. Cancel-safe.
    pub async fn take(&mut self, bulk: &Arc<Bulk>, buffer: &mut [u8]) -> io::Result<Taken> {
        match self {
            Self::Pipe(pipe) => pipe.take(bulk, buffer).await,
            Self::Terminal(terminal) => terminal.read(buffer).await.map(Taken::Read),
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
