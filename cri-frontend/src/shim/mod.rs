//! The pods' shims: the only place that speaks ttrpc.

mod calls;
mod connect;
mod launch;
mod process;

use std::{io, path::PathBuf, time::Duration};

use a3s_box_proto::ids::SandboxId;
pub use calls::{AttachTo, CreateTask, ExecTask, HostCost, Shim, Stats, Stdin};
pub use connect::{Connection, connect};
pub use launch::{SOCKET, Shims};
pub use process::ShimProcess;
use ttrpc::Code;

use crate::error::Kind;

/// Why a shim did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum ShimError {
    /// The program cannot be run.
    #[error("cannot run the shim {program}: {source}")]
    Run {
        /// The program.
        program: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The program ended with an error.
    #[error("the shim's {action} failed ({status}): {output}")]
    Failed {
        /// `start` or `delete`.
        action: &'static str,
        /// Its exit status.
        status: String,
        /// What it said.
        output: String,
    },
    /// The program took too long and was killed.
    #[error("the shim's {action} did not end within {bound:?}")]
    Slow {
        /// `start` or `delete`.
        action: &'static str,
        /// How long it had.
        bound: Duration,
    },
    /// What it printed is no bootstrap result, or names something unexpected.
    #[error("the shim's start answered {0}")]
    BadAnswer(String),
    /// Its socket cannot be reached.
    #[error("cannot connect to the shim at {path}: {source}")]
    Connect {
        /// The socket.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// Its process cannot be watched.
    #[error("cannot watch the process of pod sandbox {sandbox}'s shim: {source}")]
    Watch {
        /// Whose shim.
        sandbox: SandboxId,
        /// The cause.
        source: io::Error,
    },
    /// It answered with an error.
    #[error("{message}")]
    Refused {
        /// The code of the answer.
        code: Code,
        /// What it said.
        message: String,
    },
    /// It did not answer in time.
    #[error("the shim did not answer {call} within {bound:?}")]
    Silent {
        /// The call.
        call: &'static str,
        /// How long it had.
        bound: Duration,
    },
    /// The connection broke.
    #[error("the connection to the shim was lost in {call}: {reason}")]
    Lost {
        /// The call.
        call: &'static str,
        /// The cause.
        reason: String,
    },
    /// Nobody is connected: the pod has stopped, or its shim is being looked for.
    #[error("pod sandbox {0} has no shim to talk to")]
    Absent(SandboxId),
}

impl ShimError {
    /// What the caller has to deal with.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Run { .. } | Self::Failed { .. } | Self::BadAnswer(_) | Self::Watch { .. } => {
                Kind::Internal
            }
            Self::Slow { .. } | Self::Silent { .. } => Kind::DeadlineExceeded,
            Self::Connect { .. } | Self::Lost { .. } | Self::Absent(_) => Kind::Unavailable,
            Self::Refused { code, .. } => kind_of_code(*code),
        }
    }

    /// The shim answered that there is no such object.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Refused { code: Code::NOT_FOUND, .. })
    }

    /// The shim answered that it has an object of this id.
    pub fn is_already_exists(&self) -> bool {
        matches!(self, Self::Refused { code: Code::ALREADY_EXISTS, .. })
    }

    /// The shim answered that the object is in another state.
    pub fn is_wrong_state(&self) -> bool {
        matches!(self, Self::Refused { code: Code::FAILED_PRECONDITION, .. })
    }
}

fn kind_of_code(code: Code) -> Kind {
    match code {
        Code::NOT_FOUND => Kind::NotFound,
        Code::ALREADY_EXISTS => Kind::AlreadyExists,
        Code::INVALID_ARGUMENT | Code::OUT_OF_RANGE => Kind::InvalidArgument,
        Code::FAILED_PRECONDITION => Kind::FailedPrecondition,
        Code::UNAVAILABLE | Code::ABORTED | Code::CANCELLED => Kind::Unavailable,
        Code::DEADLINE_EXCEEDED => Kind::DeadlineExceeded,
        Code::RESOURCE_EXHAUSTED => Kind::ResourceExhausted,
        Code::PERMISSION_DENIED | Code::UNAUTHENTICATED => Kind::PermissionDenied,
        Code::UNIMPLEMENTED => Kind::Unimplemented,
        Code::OK | Code::UNKNOWN | Code::INTERNAL | Code::DATA_LOSS => Kind::Internal,
    }
}
