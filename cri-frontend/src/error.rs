//! What can go wrong, in words for an operator: each message names the object, the step and the cause.

use std::{io, path::PathBuf, sync::Arc, time::Duration};

use a3s_box_image::{ErrorKind, ImageError};
use a3s_box_network::{CniError, NetnsError, PluginError};
use a3s_box_spec::SpecError;

use crate::{events::FellBehind, shim::ShimError, state::StateError};

/// What kind of failure a caller has to deal with; `grpc::status_code` maps it to a gRPC code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The object does not exist.
    NotFound,
    /// The name is taken.
    AlreadyExists,
    /// The request makes no sense, whatever the state.
    InvalidArgument,
    /// The object is in another state than the call needs.
    FailedPrecondition,
    /// Someone else did not answer; trying again may help.
    Unavailable,
    /// A bound of time passed.
    DeadlineExceeded,
    /// No room, no descriptor, too much asked for.
    ResourceExhausted,
    /// Refused for want of rights.
    PermissionDenied,
    /// Refused for want of credentials, or for wrong ones.
    Unauthenticated,
    /// Not served here.
    Unimplemented,
    /// Our own fault, or the machine's.
    Internal,
}

/// Any failure of the frontend's domain.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No object of this id, or id prefix.
    #[error("{what} {id:?} not found")]
    NotFound {
        /// "pod sandbox", "container" or "image".
        what: &'static str,
        /// What was asked for.
        id: String,
    },
    /// An id prefix that fits several objects.
    #[error("{prefix:?} is the beginning of several ids of {what}s: give more of it")]
    Ambiguous {
        /// "pod sandbox" or "container".
        what: &'static str,
        /// What was asked for.
        prefix: String,
    },
    /// A name that another object has.
    #[error("{what} name {name:?} is reserved for {id}")]
    Reserved {
        /// "pod sandbox" or "container".
        what: &'static str,
        /// The name, with all that makes it unique.
        name: String,
        /// Who has it.
        id: String,
    },
    /// A request that can never succeed.
    #[error("{0}")]
    Invalid(String),
    /// A request at the wrong time.
    #[error("{what} {id} {problem}")]
    State {
        /// "pod sandbox" or "container".
        what: &'static str,
        /// Which one.
        id: String,
        /// What is wrong with its state.
        problem: String,
    },
    /// A pod that has as many containers as it may.
    #[error(
        "pod sandbox {id} has {most} containers already, the most that cri.max_containers allows: remove some"
    )]
    TooMany {
        /// Which one.
        id: String,
        /// How many.
        most: usize,
    },
    /// A step of a longer work failed.
    #[error("{object}: {step}: {source}")]
    Step {
        /// What was worked on.
        object: String,
        /// The step, in words.
        step: &'static str,
        /// The cause.
        source: Box<Error>,
    },
    /// A container's process could not be begun.
    #[error("container {id} cannot be started: {source}")]
    StartFailed {
        /// Which one.
        id: String,
        /// The cause.
        source: Box<Error>,
    },
    /// A file operation failed.
    #[error("cannot {action} {path}: {source}")]
    File {
        /// "create", "write", …
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// Something took too long.
    #[error("{what} did not end within {bound:?}")]
    Timeout {
        /// What was waited for.
        what: String,
        /// How long.
        bound: Duration,
    },
    /// More at once than is kept.
    #[error("there are {most} {what} already: try again in a minute")]
    Crowded {
        /// Of what.
        what: &'static str,
        /// How many.
        most: usize,
    },
    /// The frontend was asked to end, and this would keep it.
    #[error("{0} is given up: the frontend ends")]
    Ending(String),
    /// The work's task ended without an answer.
    #[error("the work on this request was given up: {0}")]
    Abandoned(String),
    /// A subscriber of events that was too slow.
    #[error(transparent)]
    FellBehind(#[from] FellBehind),
    /// The kernel gave no random numbers for an id.
    #[error("cannot make an id: {0}")]
    NoRandom(String),
    /// The same answer for several callers.
    #[error("{0}")]
    Shared(Arc<Error>),
    /// The shim refused, failed or is gone.
    #[error(transparent)]
    Shim(#[from] ShimError),
    /// The image store refused or failed.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// The network namespace cannot be made or removed.
    #[error(transparent)]
    Netns(#[from] NetnsError),
    /// CNI's configuration or a plugin.
    #[error(transparent)]
    Cni(#[from] CniError),
    /// The container's configuration is refused.
    #[error(transparent)]
    Spec(#[from] SpecError),
    /// The records cannot be written.
    #[error(transparent)]
    Records(#[from] StateError),
}

impl Error {
    /// Puts the object and the step before a cause.
    pub fn at(object: impl Into<String>, step: &'static str) -> impl FnOnce(Self) -> Self {
        let object = object.into();
        move |source| Self::Step { object, step, source: Box::new(source) }
    }

    /// A failed file operation.
    pub fn file(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { action, path, source }
    }

    /// What the caller has to deal with.
    pub fn kind(&self) -> Kind {
        match self {
            Self::NotFound { .. } => Kind::NotFound,
            Self::Reserved { .. } => Kind::AlreadyExists,
            Self::Ambiguous { .. } | Self::Invalid(_) | Self::Spec(_) => Kind::InvalidArgument,
            Self::State { .. } => Kind::FailedPrecondition,
            Self::Step { source, .. } => source.kind(),
            Self::Shared(source) => source.kind(),
            // What was not found is the program: the container itself exists.
            Self::StartFailed { source, .. } => match source.kind() {
                Kind::NotFound => Kind::InvalidArgument,
                kind => kind,
            },
            Self::Timeout { .. } => Kind::DeadlineExceeded,
            Self::FellBehind(_) | Self::TooMany { .. } | Self::Crowded { .. } => Kind::ResourceExhausted,
            Self::Ending(_) => Kind::Unavailable,
            Self::Abandoned(_) | Self::NoRandom(_) => Kind::Internal,
            Self::File { source, .. } => kind_of_io(source),
            Self::Shim(error) => error.kind(),
            Self::Image(error) => kind_of_image(error.kind()),
            Self::Netns(_) => Kind::Internal,
            Self::Cni(error) => kind_of_cni(error),
            Self::Records(error) => error.kind(),
        }
    }
}

/// What a failed system call means to the caller.
pub fn kind_of_io(error: &io::Error) -> Kind {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::OutOfMemory => {
            Kind::ResourceExhausted
        }
        io::ErrorKind::TimedOut => Kind::DeadlineExceeded,
        _ => Kind::Internal,
    }
}

fn kind_of_image(kind: ErrorKind) -> Kind {
    match kind {
        ErrorKind::NotFound => Kind::NotFound,
        ErrorKind::InvalidArgument => Kind::InvalidArgument,
        ErrorKind::Unavailable => Kind::Unavailable,
        ErrorKind::Unauthenticated => Kind::Unauthenticated,
        ErrorKind::PermissionDenied => Kind::PermissionDenied,
        ErrorKind::ResourceExhausted => Kind::ResourceExhausted,
        ErrorKind::FailedPrecondition => Kind::FailedPrecondition,
        ErrorKind::Internal => Kind::Internal,
    }
}

fn kind_of_cni(error: &CniError) -> Kind {
    match error {
        CniError::NoConfig { .. } | CniError::Config { .. } | CniError::PluginMissing { .. } => {
            Kind::FailedPrecondition
        }
        CniError::Plugin { source, .. } => match **source {
            PluginError::TimedOut { .. } => Kind::DeadlineExceeded,
            _ => Kind::Internal,
        },
        CniError::NotUndone { cause, .. } => kind_of_cni(cause),
        CniError::Argument { .. } | CniError::Incapable { .. } => Kind::InvalidArgument,
        CniError::ShuttingDown { .. } => Kind::Unavailable,
        CniError::File { source, .. } => kind_of_io(source),
        CniError::Result { .. } | CniError::Attached { .. } | CniError::Cache { .. } => Kind::Internal,
    }
}
