//! The one place where the domain's errors become ttrpc's codes.

use ttrpc::{Code, get_status};

use crate::error::Error;

/// A longer message is cut: it is a host's log line in the end.
const MAX_MESSAGE: usize = 4096;

/// An error as the caller gets it.
pub fn to_ttrpc(error: &Error) -> ttrpc::Error {
    let code = match error {
        Error::NotFound(_) => Code::NOT_FOUND,
        Error::AlreadyExists(_) => Code::ALREADY_EXISTS,
        Error::Invalid { .. } => Code::INVALID_ARGUMENT,
        Error::Precondition { .. } | Error::Program { .. } => Code::FAILED_PRECONDITION,
        Error::Failed { source, .. } if source.is_exhausted() => Code::RESOURCE_EXHAUSTED,
        Error::Failed { .. } => Code::INTERNAL,
    };
    let mut message = error.to_string();
    message.truncate(message.floor_char_boundary(MAX_MESSAGE));
    tracing::warn!("{message}");
    ttrpc::Error::RpcStatus(get_status(code, message))
}

/// A fault of the agent itself.
pub fn internal(message: &str) -> ttrpc::Error {
    ttrpc::Error::RpcStatus(get_status(Code::INTERNAL, message))
}
