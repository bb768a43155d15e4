//! The one place where an error becomes a gRPC status.

use tonic::{Code, Status};

use crate::error::{Error, Kind};

/// A status message beyond this is cut: it travels in an HTTP header.
const LONGEST_MESSAGE: usize = 6 * 1024;

impl From<Error> for Status {
    fn from(error: Error) -> Self {
        let mut message = error.to_string();
        if message.len() > LONGEST_MESSAGE {
            message.truncate(message.floor_char_boundary(LONGEST_MESSAGE));
            message.push('…');
        }
        Self::new(code(error.kind()), message)
    }
}

fn code(kind: Kind) -> Code {
    match kind {
        Kind::NotFound => Code::NotFound,
        Kind::AlreadyExists => Code::AlreadyExists,
        Kind::InvalidArgument => Code::InvalidArgument,
        Kind::FailedPrecondition => Code::FailedPrecondition,
        Kind::Unavailable => Code::Unavailable,
        Kind::DeadlineExceeded => Code::DeadlineExceeded,
        Kind::ResourceExhausted => Code::ResourceExhausted,
        Kind::PermissionDenied => Code::PermissionDenied,
        Kind::Unauthenticated => Code::Unauthenticated,
        Kind::Unimplemented => Code::Unimplemented,
        Kind::Internal => Code::Internal,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use ttrpc::Code as ShimCode;

    use super::*;
    use crate::shim::ShimError;

    fn refused(code: ShimCode) -> Error {
        ShimError::Refused { code, message: "the shim says no".into() }.into()
    }

    #[test]
    fn errors_have_the_codes_that_kubelet_expects() {
        let timeout = Error::Timeout { what: "exec".into(), bound: Duration::from_secs(1) };
        for (error, expected) in [
            (Error::NotFound { what: "container", id: "x".into() }, Code::NotFound),
            (Error::Reserved { what: "container", name: "a".into(), id: "b".into() }, Code::AlreadyExists),
            (Error::Invalid("bad".into()), Code::InvalidArgument),
            (timeout, Code::DeadlineExceeded),
            (refused(ShimCode::INVALID_ARGUMENT), Code::InvalidArgument),
            (refused(ShimCode::UNIMPLEMENTED), Code::Unimplemented),
            (refused(ShimCode::RESOURCE_EXHAUSTED), Code::ResourceExhausted),
        ] {
            assert_eq!(Status::from(error).code(), expected);
        }
    }

    #[test]
    fn a_step_keeps_the_code_of_its_cause_and_tells_both() {
        let error = Error::at("pod prod/web", "booting its MicroVM")(refused(ShimCode::UNAVAILABLE));
        let status = Status::from(error);
        assert_eq!(status.code(), Code::Unavailable);
        assert_eq!(status.message(), "pod prod/web: booting its MicroVM: the shim says no");
    }

    #[test]
    fn a_missing_program_is_no_missing_container() {
        let error = Error::StartFailed { id: "c".into(), source: Box::new(refused(ShimCode::NOT_FOUND)) };
        assert_eq!(Status::from(error).code(), Code::InvalidArgument);
    }

    #[test]
    fn long_messages_are_cut() {
        let status = Status::from(Error::Invalid("ä".repeat(20_000)));
        assert!(status.message().len() <= LONGEST_MESSAGE + 3);
    }
}
