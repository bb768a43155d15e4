//! What a call of the shim's services may fail with, and the one mapping to ttrpc codes.

use std::io;

use a3s_box_proto::{ids::InvalidId, stdio::InvalidEndpoint};
use ttrpc::{Code, get_status};

use crate::{agent::AgentError, pod::annotations::InvalidAnnotation, pod::boot::BootError};

/// The result of a pod's operation.
pub type Result<T> = std::result::Result<T, Error>;

/// Why an operation failed: object, step, cause.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An annotation under `a3s.box/` that cannot be obeyed.
    #[error(transparent)]
    Annotation(#[from] InvalidAnnotation),
    /// An id that could be read as something else.
    #[error(transparent)]
    Id(#[from] InvalidId),
    /// A standard stream that leads nowhere we know.
    #[error(transparent)]
    Endpoint(#[from] InvalidEndpoint),
    /// A request that cannot be right.
    #[error("{object}: {reason}")]
    Invalid {
        /// What the request names.
        object: String,
        /// What is wrong, and what is accepted.
        reason: String,
    },
    /// No such object.
    #[error("{0} does not exist")]
    NotFound(String),
    /// The id is taken.
    #[error("{0} exists already")]
    AlreadyExists(String),
    /// The object's state does not allow it.
    #[error("{object} is {state}: cannot {action}")]
    State {
        /// What the request names.
        object: String,
        /// The state it is in.
        state: String,
        /// What was asked.
        action: &'static str,
    },
    /// There are as many as there may be.
    #[error("{object} has {most} {what} already, and may have no more")]
    Full {
        /// What has them.
        object: String,
        /// How many.
        most: usize,
        /// Of what.
        what: &'static str,
    },
    /// Something we do not do.
    #[error("{0} is not supported")]
    Unsupported(&'static str),
    /// The MicroVM did not come up.
    #[error(transparent)]
    Boot(#[from] BootError),
    /// The guest's agent refused, or cannot be reached.
    #[error(transparent)]
    Agent(#[from] AgentError),
    /// The host failed.
    #[error("{step}: {source}")]
    Host {
        /// What was being done, to what.
        step: String,
        /// The cause.
        source: io::Error,
    },
    /// The pod's shim is on its way out.
    #[error("{0} was interrupted: the pod is being stopped")]
    Interrupted(&'static str),
}

impl Error {
    /// An [`Error::Invalid`].
    pub fn invalid(object: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Invalid { object: object.into(), reason: reason.into() }
    }

    fn code(&self) -> Code {
        match self {
            Self::Annotation(_) | Self::Id(_) | Self::Endpoint(_) | Self::Invalid { .. } => {
                Code::INVALID_ARGUMENT
            }
            Self::NotFound(_) => Code::NOT_FOUND,
            Self::AlreadyExists(_) => Code::ALREADY_EXISTS,
            Self::State { .. } => Code::FAILED_PRECONDITION,
            Self::Full { .. } => Code::RESOURCE_EXHAUSTED,
            Self::Unsupported(_) => Code::UNIMPLEMENTED,
            Self::Boot(error) => error.code(),
            Self::Agent(error) => error.code(),
            Self::Host { source, .. } => code_of(source.kind()),
            Self::Interrupted(_) => Code::ABORTED,
        }
    }
}

/// What a caller may make of a failure of the host.
pub fn code_of(kind: io::ErrorKind) -> Code {
    match kind {
        io::ErrorKind::StorageFull
        | io::ErrorKind::QuotaExceeded
        | io::ErrorKind::OutOfMemory
        // EAGAIN, of a thread that could not be started.
        | io::ErrorKind::WouldBlock => Code::RESOURCE_EXHAUSTED,
        io::ErrorKind::TimedOut => Code::DEADLINE_EXCEEDED,
        io::ErrorKind::Unsupported => Code::FAILED_PRECONDITION,
        io::ErrorKind::Interrupted => Code::ABORTED,
        _ => Code::INTERNAL,
    }
}

/// What was given up.
pub fn interrupted() -> io::Error {
    io::Error::new(io::ErrorKind::Interrupted, "the pod is being stopped")
}

impl From<Error> for ttrpc::Error {
    fn from(error: Error) -> Self {
        Self::RpcStatus(get_status(error.code(), error))
    }
}

/// Names the step in which the host failed.
pub trait Step<T> {
    /// Wraps an error; the text is made only where there is one.
    ///
    /// # Errors
    /// The wrapped one.
    fn step(self, step: impl FnOnce() -> String) -> Result<T>;
}

impl<T> Step<T> for io::Result<T> {
    fn step(self, step: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|source| Error::Host { step: step(), source })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_has_the_code_that_containerd_expects_and_names_object_and_cause() {
        let error = Error::State { object: "container c1".into(), state: "running".into(), action: "delete" };
        let ttrpc::Error::RpcStatus(status) = error.into() else { panic!("not a status") };
        assert_eq!(status.code(), Code::FAILED_PRECONDITION);
        assert_eq!(status.message(), "container c1 is running: cannot delete");
    }
}
