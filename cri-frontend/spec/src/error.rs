//! Why a container or a pod cannot be as its configuration asks.

/// A field of the request, or of the image's configuration, that cannot be honoured.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SpecError {
    /// The value makes no sense.
    #[error("{field}: {reason}")]
    Invalid {
        /// The field, in the CRI's words.
        field: String,
        /// What is wrong, and what is accepted.
        reason: String,
    },
    /// The value makes sense, but not for a pod in a MicroVM, or not yet.
    #[error("{field} is not supported: {reason}")]
    Unsupported {
        /// The field, in the CRI's words.
        field: String,
        /// Why.
        reason: String,
    },
}

pub(crate) fn invalid(field: impl Into<String>, reason: impl Into<String>) -> SpecError {
    SpecError::Invalid { field: field.into(), reason: reason.into() }
}

pub(crate) fn unsupported(field: impl Into<String>, reason: impl Into<String>) -> SpecError {
    SpecError::Unsupported { field: field.into(), reason: reason.into() }
}
