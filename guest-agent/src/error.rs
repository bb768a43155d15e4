//! What can go wrong, in words that name the object, the step and the cause.

use std::{fmt, io};

use a3s_box_proto::ids::{ContainerId, ExecId};

/// A step that the kernel refused.
#[derive(Debug, thiserror::Error)]
#[error("{step}: {source}")]
pub struct Failed {
    step: String,
    #[source]
    source: io::Error,
}

impl Failed {
    /// A failure that has no system call behind it.
    pub fn because(step: impl Into<String>, why: impl Into<String>) -> Self {
        Self { step: step.into(), source: io::Error::other(why.into()) }
    }

    /// Something that has a limit has reached it.
    pub fn exhausted(step: impl Into<String>, why: impl Into<String>) -> Self {
        Self { step: step.into(), source: io::Error::new(io::ErrorKind::QuotaExceeded, why.into()) }
    }

    /// Whether there is no more to be had of something, for now.
    pub fn is_exhausted(&self) -> bool {
        use io::ErrorKind::{OutOfMemory, QuotaExceeded, StorageFull};
        matches!(self.source.kind(), OutOfMemory | QuotaExceeded | StorageFull)
    }
}

/// Says which step an error belongs to.
pub trait Step<T> {
    /// Names the step.
    fn step(self, step: impl FnOnce() -> String) -> Result<T, Failed>;
}

impl<T, E: Into<io::Error>> Step<T> for Result<T, E> {
    fn step(self, step: impl FnOnce() -> String) -> Result<T, Failed> {
        self.map_err(|error| Failed { step: step(), source: error.into() })
    }
}

/// What a request is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Object {
    /// A container.
    Container(ContainerId),
    /// One more process of a container.
    Exec(ContainerId, ExecId),
    /// The pod as a whole.
    Sandbox,
}

impl fmt::Display for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Container(id) => write!(f, "container {id}"),
            Self::Exec(container, exec) => write!(f, "exec {exec} of container {container}"),
            Self::Sandbox => f.write_str("sandbox"),
        }
    }
}

/// Why a request was not carried out.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nobody of that name.
    #[error("{0} does not exist")]
    NotFound(Object),
    /// The name is taken by something else.
    #[error("{0} already exists")]
    AlreadyExists(Object),
    /// The request itself is wrong.
    #[error("invalid {what}: {why}")]
    Invalid {
        /// The field.
        what: &'static str,
        /// What is wrong with it.
        why: String,
    },
    /// Right, but not now.
    #[error("{object}: {why}")]
    Precondition {
        /// Whose state forbids it.
        object: Object,
        /// What it would have to be.
        why: String,
    },
    /// A program that cannot be run, in the words that runc's users know.
    #[error("{object}: unable to start process: {message}")]
    Program {
        /// Whose program.
        object: Object,
        /// `exec: "foo": executable file not found in $PATH` and the like.
        message: String,
    },
    /// A step failed.
    #[error("{object}: {source}")]
    Failed {
        /// What it was done for.
        object: Object,
        /// The step and its cause.
        #[source]
        source: Failed,
    },
}

impl Error {
    /// A wrong field.
    pub fn invalid(what: &'static str, why: impl fmt::Display) -> Self {
        Self::Invalid { what, why: why.to_string() }
    }
}

/// Says whom a failed step belongs to.
pub trait For<T> {
    /// Names the object.
    fn of(self, object: impl FnOnce() -> Object) -> Result<T, Error>;
}

impl<T> For<T> for Result<T, Failed> {
    fn of(self, object: impl FnOnce() -> Object) -> Result<T, Error> {
        self.map_err(|source| Error::Failed { object: object(), source })
    }
}

/// Runs what may wait for a disk or for the host on a thread of its own.
pub async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Failed> + Send + 'static,
) -> Result<T, Failed> {
    match tokio::task::spawn_blocking(work).await {
        Ok(outcome) => outcome,
        Err(error) => Err(Failed::because("run a blocking step", error.to_string())),
    }
}
