//! Where a process's standard streams go on the host: the strings of containerd's `stdin`, `stdout` and `stderr`.

use std::{
    fmt,
    path::{Path, PathBuf},
    str::FromStr,
};

/// One end of a standard stream, as the shim is told of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Endpoint {
    /// A FIFO, which the shim opens: containerd's way, a plain path.
    Fifo(PathBuf),
    /// A listening unix socket, which the shim connects to, one connection a stream; `unix://` and the path.
    Socket(PathBuf),
    /// A log file in the CRI's format, which the shim writes; `cri-log://` and the path.
    CriLog(PathBuf),
}

/// Why a string names no endpoint.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidEndpoint {
    /// A URI of a kind that we do not serve, containerd's `binary://` for example.
    #[error("stdio {0:?} is not supported: a FIFO's path, unix:// or cri-log:// is")]
    UnknownScheme(String),
    /// A path that depends on the working directory.
    #[error("stdio {0:?} is not an absolute path")]
    NotAbsolute(String),
}

impl Endpoint {
    /// Parses containerd's field: the empty string means that the stream is not wanted.
    pub fn parse_optional(text: &str) -> Result<Option<Self>, InvalidEndpoint> {
        if text.is_empty() {
            return Ok(None);
        }
        text.parse().map(Some)
    }

    /// The path, whatever stands there.
    pub fn path(&self) -> &Path {
        match self {
            Self::Fifo(path) | Self::Socket(path) | Self::CriLog(path) => path,
        }
    }
}

impl FromStr for Endpoint {
    type Err = InvalidEndpoint;

    fn from_str(text: &str) -> Result<Self, InvalidEndpoint> {
        let (make, path): (fn(PathBuf) -> Self, &str) = match text.split_once("://") {
            None => (Self::Fifo, text),
            Some(("fifo", path)) => (Self::Fifo, path),
            Some(("unix", path)) => (Self::Socket, path),
            Some(("cri-log", path)) => (Self::CriLog, path),
            Some(_) => return Err(InvalidEndpoint::UnknownScheme(text.to_owned())),
        };
        if !path.starts_with('/') {
            return Err(InvalidEndpoint::NotAbsolute(text.to_owned()));
        }
        Ok(make(PathBuf::from(path)))
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fifo(path) => write!(f, "{}", path.display()),
            Self::Socket(path) => write!(f, "unix://{}", path.display()),
            Self::CriLog(path) => write!(f, "cri-log://{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_survive_the_way_to_the_shim() {
        for text in ["/run/f/stdout", "unix:///run/s", "cri-log:///var/log/pods/a/0.log"] {
            assert_eq!(text.parse::<Endpoint>().unwrap().to_string(), text);
        }
        assert_eq!(Endpoint::parse_optional(""), Ok(None));
        assert!("binary:///bin/log?id=1".parse::<Endpoint>().is_err());
        assert!("cri-log://relative".parse::<Endpoint>().is_err());
    }
}
