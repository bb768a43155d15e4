//! What PID 1 and a worker say to each other.

use std::{
    fs::File,
    io::{self, Read, Seek, Write},
    os::fd::{OwnedFd, RawFd},
    path::PathBuf,
};

use nix::sys::memfd::{MFdFlags, memfd_create};
use oci_spec::runtime::{LinuxCapabilities, PosixRlimit, User};
use serde::{Deserialize, Serialize};

use crate::{
    error::{Failed, Step},
    process::seccomp::Filter,
    sys::{socket, tty},
};

/// A request's JSON has at most so many bytes: the kernel's limit for arguments and environment, and room.
const MAX_REQUEST: u64 = 16 << 20;
/// A reply's.
pub const MAX_REPLY: usize = 16 << 10;

/// What is asked of a worker. Descriptors travel beside it: request, replies, then what the variant says.
#[derive(Debug, Serialize, Deserialize)]
pub enum Request {
    /// Make a container. Descriptors: stdin, stdout, stderr.
    Create(Box<Create>),
    /// Run one more process. Descriptors: stdin, stdout, stderr, the init process, the cgroup's directory.
    Exec(Box<Exec>),
    /// Make the init process of a PID namespace that containers share.
    Pause,
}

/// A container whose configuration lies in its bundle.
#[derive(Debug, Serialize, Deserialize)]
pub struct Create {
    /// Its id.
    pub id: String,
    /// The directory of its config.json.
    pub bundle: PathBuf,
    /// It has a terminal; the worker sends it.
    pub terminal: bool,
    /// How willingly the kernel kills it.
    pub oom_score_adj: i32,
    /// What its init process becomes once it is started.
    pub program: Program,
}

/// A program and the privileges that it is run with.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Program {
    /// Its name and arguments.
    pub arguments: Vec<String>,
    /// `NAME=value`.
    pub environment: Vec<String>,
    /// Working directory.
    pub directory: PathBuf,
    /// User and groups by number.
    pub user: User,
    /// None: all that the container's PID 1 could have.
    pub capabilities: Option<LinuxCapabilities>,
    /// No program may gain privileges.
    pub no_new_privileges: bool,
    /// The session keyring that the container's processes share.
    pub keyring: String,
    /// The container's profile.
    pub seccomp: Option<Filter>,
}

/// A process in a running container.
#[derive(Debug, Serialize, Deserialize)]
pub struct Exec {
    /// What it becomes.
    pub program: Program,
    /// Limits.
    pub rlimits: Vec<PosixRlimit>,
    /// CLONE_NEW* flags of the namespaces to enter.
    pub namespaces: i32,
    /// It gets a terminal.
    pub terminal: Option<Terminal>,
    /// How willingly the kernel kills it.
    pub oom_score_adj: i32,
}

/// A terminal to be made. A type of its own: JSON knows no difference between nothing and a size that is not stated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Terminal {
    /// Columns and rows, where they are stated.
    pub size: Option<(u16, u16)>,
}

/// What a worker, or the process that it makes, answers.
#[derive(Debug, Serialize, Deserialize)]
pub enum Reply {
    /// The process exists; this is its id.
    Made(i32),
    /// The master end of its terminal travels beside this.
    Terminal,
    /// A step failed.
    Failed(Failure),
    /// The program cannot be run.
    Program(String),
}

/// A failed step.
#[derive(Debug, Serialize, Deserialize)]
pub struct Failure {
    /// What was tried.
    pub step: String,
    /// Why not.
    pub cause: String,
    /// There is no more to be had of something, for now.
    pub exhausted: bool,
}

impl Failure {
    /// In the system's words.
    pub fn new(step: impl Into<String>, cause: &dyn std::fmt::Display) -> Self {
        Self { step: step.into(), cause: cause.to_string(), exhausted: false }
    }

    /// Something that has a limit has reached it.
    pub fn exhausted(step: impl Into<String>, cause: &dyn std::fmt::Display) -> Self {
        Self { exhausted: true, ..Self::new(step, cause) }
    }
}

impl From<Failure> for Failed {
    fn from(failure: Failure) -> Self {
        if failure.exhausted {
            Self::exhausted(failure.step, failure.cause)
        } else {
            Self::because(failure.step, failure.cause)
        }
    }
}

/// Adds the step to a result inside a worker.
pub trait During<T> {
    /// Names the step.
    fn during(self, step: &str) -> Result<T, Failure>;
}

impl<T, E: std::fmt::Display> During<T> for Result<T, E> {
    fn during(self, step: &str) -> Result<T, Failure> {
        self.map_err(|error| Failure::new(step, &error))
    }
}

/// Writes a request where a worker reads it: descriptors have no limit of length that a message has.
pub fn write(request: &Request) -> Result<OwnedFd, Failed> {
    let step = || "write a request for the zygote".to_owned();
    let fd = memfd_create("request", MFdFlags::MFD_CLOEXEC).step(step)?;
    let mut file = File::from(fd);
    let json = serde_json::to_vec(request).step(step)?;
    file.write_all(&json).step(step)?;
    Ok(file.into())
}

/// What was written there.
pub fn read(request: OwnedFd) -> io::Result<Request> {
    let mut file = File::from(request);
    file.rewind()?;
    let mut json = Vec::new();
    file.take(MAX_REQUEST).read_to_end(&mut json)?;
    Ok(serde_json::from_slice(&json)?)
}

/// Sends a reply, with a descriptor where one belongs to it.
pub fn reply(socket: &OwnedFd, reply: &Reply, fd: Option<RawFd>) -> io::Result<()> {
    let mut json = serde_json::to_vec(reply)?;
    if json.len() > MAX_REPLY {
        let cut = Failure::new("report an error", &"the report is too long");
        json = serde_json::to_vec(&Reply::Failed(cut))?;
    }
    socket::send(socket, &json, fd.as_slice())
}

impl Exec {
    /// The terminal's first size.
    pub fn terminal_size(&self) -> Option<tty::Size> {
        self.terminal?.size.map(|(width, height)| tty::Size { width, height })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_without_a_size_is_still_one() {
        for terminal in [None, Some(Terminal { size: None }), Some(Terminal { size: Some((80, 24)) })] {
            let json = serde_json::to_string(&terminal).unwrap();
            assert_eq!(serde_json::from_str::<Option<Terminal>>(&json).unwrap(), terminal);
        }
    }
}
