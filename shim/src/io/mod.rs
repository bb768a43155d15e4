//! Where processes' standard streams go on the host.

pub mod cri_log;
mod fifo;
pub mod hub;
pub mod pump;
pub mod socket;

use std::{
    fs::File,
    io,
    os::{fd::OwnedFd, unix::net::UnixStream},
    path::PathBuf,
    pin::Pin,
    sync::Arc,
};

use a3s_box_proto::stdio::{Endpoint, InvalidEndpoint};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::unix::pipe,
};

use crate::sys::namespace::HostNamespace;
use cri_log::{LogFile, LogSink, Stream};
use socket::SocketSink;

/// Where a process's input comes from.
pub type Source = Pin<Box<dyn AsyncRead + Send>>;
/// Where an output goes.
pub type Sink = Pin<Box<dyn AsyncWrite + Send>>;

/// The standard streams of a process, as asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stdio {
    /// Where the input comes from.
    pub stdin: Option<Endpoint>,
    /// Where the output goes.
    pub stdout: Option<Endpoint>,
    /// Where the error output goes; nowhere with a terminal.
    pub stderr: Option<Endpoint>,
    /// Whether the process has a terminal.
    pub terminal: bool,
}

impl Stdio {
    /// Reads containerd's fields.
    ///
    /// # Errors
    /// One of them leads nowhere we know.
    pub fn parse(stdin: &str, stdout: &str, stderr: &str, terminal: bool) -> Result<Self, InvalidEndpoint> {
        Ok(Self {
            stdin: Endpoint::parse_optional(stdin)?,
            stdout: Endpoint::parse_optional(stdout)?,
            stderr: if terminal { None } else { Endpoint::parse_optional(stderr)? },
            terminal,
        })
    }

    /// An endpoint as containerd gave it.
    pub fn text(endpoint: Option<&Endpoint>) -> String {
        endpoint.map(ToString::to_string).unwrap_or_default()
    }
}

/// The host's ends of a process's streams, open.
pub struct Opened {
    /// The input's.
    pub stdin: Option<Source>,
    /// The output's, if anybody wants it.
    pub stdout: Option<Sink>,
    /// The error output's, if anybody wants it.
    pub stderr: Option<Sink>,
    /// The log file, where the output goes to one.
    pub log: Option<Arc<LogFile>>,
}

/// An endpoint, opened where the caller's paths mean what the caller meant.
enum Raw {
    Fifo(OwnedFd),
    Socket(UnixStream),
    Log(PathBuf, File),
}

/// Opens all of them.
///
/// # Errors
/// One cannot be opened; the text names it.
pub async fn open(host: &HostNamespace, stdio: &Stdio) -> io::Result<Opened> {
    let wanted = stdio.clone();
    let (stdin, stdout, stderr) = host
        .run(move || {
            Ok((
                wanted.stdin.as_ref().map(open_source).transpose()?,
                wanted.stdout.as_ref().map(open_sink).transpose()?,
                // Both streams of a container go to one log file, in one order: it is opened once.
                wanted
                    .stderr
                    .as_ref()
                    .filter(|stderr| !is_same_log(&wanted, stderr))
                    .map(open_sink)
                    .transpose()?,
            ))
        })
        .await?;
    let mut log = None;
    let shares_log = stdio.stderr.as_ref().is_some_and(|stderr| is_same_log(stdio, stderr));
    let stdout = stdout.map(|raw| sink(raw, Stream::Stdout, host, &mut log)).transpose()?;
    let stderr = match &log {
        Some(file) if shares_log => Some(Box::pin(LogSink::new(file.clone(), Stream::Stderr)) as Sink),
        _ => stderr.map(|raw| sink(raw, Stream::Stderr, host, &mut log)).transpose()?,
    };
    Ok(Opened { stdin: stdin.map(source).transpose()?, stdout, stderr, log })
}

fn is_same_log(stdio: &Stdio, stderr: &Endpoint) -> bool {
    matches!(stderr, Endpoint::CriLog(_)) && stdio.stdout.as_ref() == Some(stderr)
}

fn open_source(endpoint: &Endpoint) -> io::Result<Raw> {
    let raw = match endpoint {
        Endpoint::Fifo(path) => fifo::open_source(path).map(Raw::Fifo),
        Endpoint::Socket(path) => UnixStream::connect(path).map(Raw::Socket),
        Endpoint::CriLog(_) => Err(io::Error::new(io::ErrorKind::InvalidInput, "a log cannot be read from")),
    };
    named(endpoint, raw)
}

fn open_sink(endpoint: &Endpoint) -> io::Result<Raw> {
    let raw = match endpoint {
        Endpoint::Fifo(path) => fifo::open_sink(path).map(Raw::Fifo),
        Endpoint::Socket(path) => UnixStream::connect(path).map(Raw::Socket),
        Endpoint::CriLog(path) => cri_log::open_file(path).map(|file| Raw::Log(path.clone(), file)),
    };
    named(endpoint, raw)
}

fn source(raw: Raw) -> io::Result<Source> {
    Ok(match raw {
        Raw::Fifo(fifo) => Box::pin(pipe::Receiver::from_owned_fd(fifo)?),
        Raw::Socket(socket) => Box::pin(connected(socket)?),
        Raw::Log(path, _) => return Err(io::Error::other(format!("{} is a log", path.display()))),
    })
}

fn sink(raw: Raw, stream: Stream, host: &HostNamespace, log: &mut Option<Arc<LogFile>>) -> io::Result<Sink> {
    Ok(match raw {
        Raw::Fifo(fifo) => Box::pin(pipe::Sender::from_owned_fd(fifo)?),
        Raw::Socket(socket) => Box::pin(SocketSink::new(connected(socket)?)),
        Raw::Log(path, file) => {
            let file = log.insert(Arc::new(LogFile::new(host.clone(), path, file)));
            Box::pin(LogSink::new(file.clone(), stream))
        }
    })
}

fn connected(socket: UnixStream) -> io::Result<tokio::net::UnixStream> {
    socket.set_nonblocking(true)?;
    tokio::net::UnixStream::from_std(socket)
}

fn named<T>(endpoint: &Endpoint, result: io::Result<T>) -> io::Result<T> {
    result.map_err(|error| io::Error::new(error.kind(), format!("opening {endpoint}: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_has_no_error_output_of_its_own() {
        let stdio = Stdio::parse("", "/f/out", "/f/err", true).unwrap();
        assert_eq!(stdio.stderr, None);
        assert_eq!(Stdio::text(stdio.stdout.as_ref()), "/f/out");
        assert!(Stdio::parse("", "binary:///bin/log", "", false).is_err());
    }
}
