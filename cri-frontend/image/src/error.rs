//! Why an image operation failed.

use std::{io, path::PathBuf, sync::Arc};

use reqwest::StatusCode;

use crate::{digest::Digest, layer::LayerError, reference::BadReference, registry::RegistryError};

/// What a caller should do about an error, in the terms of gRPC's codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// No such image, here or in the registry.
    NotFound,
    /// The request itself is wrong.
    InvalidArgument,
    /// The registry cannot be reached or fails: worth another try.
    Unavailable,
    /// The registry wants credentials, or other ones.
    Unauthenticated,
    /// The registry refuses these credentials.
    PermissionDenied,
    /// A limit was reached, or the disk is full.
    ResourceExhausted,
    /// The image cannot be used, or the state forbids the operation.
    FailedPrecondition,
    /// A fault of this machine or of this program.
    Internal,
}

/// Why an image operation failed. The message names image, step and cause.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// Not a name.
    #[error(transparent)]
    Reference(#[from] BadReference),
    /// No such image in the store.
    #[error("image {name:?} is not in the store")]
    NotFound {
        /// What was asked for.
        name: String,
    },
    /// The beginning of several ids.
    #[error("{prefix:?} is the beginning of more than one image id")]
    Ambiguous {
        /// What was asked for.
        prefix: String,
    },
    /// The configuration keeps it.
    #[error("image {name:?} is pinned (images.pinned) and is not removed")]
    Pinned {
        /// What was to be removed.
        name: String,
    },
    /// The registry did not give it.
    #[error("pull {image}: {step}: {source}")]
    Registry {
        /// The image.
        image: String,
        /// What was being fetched.
        step: String,
        /// The cause.
        source: RegistryError,
    },
    /// What came is no image that we can run.
    #[error("pull {image}: {reason}")]
    Unusable {
        /// The image.
        image: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A layer could not be made.
    #[error("pull {image}: layer {digest}: {source}")]
    Layer {
        /// The image.
        image: String,
        /// The layer's blob.
        digest: Digest,
        /// The cause.
        source: LayerError,
    },
    /// The disk has too little room.
    #[error("pull {image}: {source}")]
    Space {
        /// The image.
        image: String,
        /// How much is missing.
        source: LayerError,
    },
    /// Another process uses the store.
    #[error("the image store {path:?} is in use by another process")]
    Locked {
        /// The store.
        path: PathBuf,
    },
    /// The store's file system.
    #[error("image store: cannot {step} {path:?}: {source}")]
    Store {
        /// What was being done.
        step: &'static str,
        /// To what.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// A worker ended without an answer.
    #[error("{task} ended unexpectedly: {reason}")]
    Worker {
        /// What was being done.
        task: &'static str,
        /// The cause.
        reason: String,
    },
    /// Another caller's pull of the same image, which this one had joined, failed.
    #[error(transparent)]
    Joined(Arc<ImageError>),
}

impl ImageError {
    /// What a caller should do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Reference(_) | Self::Ambiguous { .. } => ErrorKind::InvalidArgument,
            Self::NotFound { .. } => ErrorKind::NotFound,
            Self::Registry { source, .. } => registry_kind(source),
            Self::Pinned { .. } | Self::Unusable { .. } | Self::Locked { .. } => {
                ErrorKind::FailedPrecondition
            }
            Self::Layer { source, .. } | Self::Space { source, .. } => layer_kind(source),
            Self::Store { source, .. } => store_kind(source),
            Self::Worker { .. } => ErrorKind::Internal,
            Self::Joined(error) => error.kind(),
        }
    }
}

fn registry_kind(error: &RegistryError) -> ErrorKind {
    match error {
        RegistryError::HostsFile { .. } | RegistryError::AuthFile { .. } | RegistryError::NoHost { .. } => {
            ErrorKind::FailedPrecondition
        }
        RegistryError::Credentials { .. } => ErrorKind::InvalidArgument,
        RegistryError::TooLarge { .. } => ErrorKind::ResourceExhausted,
        RegistryError::Status { status, .. } => match *status {
            StatusCode::NOT_FOUND => ErrorKind::NotFound,
            StatusCode::UNAUTHORIZED => ErrorKind::Unauthenticated,
            StatusCode::FORBIDDEN => ErrorKind::PermissionDenied,
            _ => ErrorKind::Unavailable,
        },
        RegistryError::Unreachable { .. }
        | RegistryError::Connection { .. }
        | RegistryError::Stalled { .. }
        | RegistryError::Protocol { .. }
        | RegistryError::Abandoned => ErrorKind::Unavailable,
    }
}

fn layer_kind(error: &LayerError) -> ErrorKind {
    match error {
        LayerError::Limit { .. } | LayerError::DiskFull { .. } => ErrorKind::ResourceExhausted,
        LayerError::Store { source, .. } => store_kind(source),
        LayerError::Converter { .. } | LayerError::Stored { .. } => ErrorKind::Internal,
        LayerError::Read(_)
        | LayerError::Entry { .. }
        | LayerError::BlobDigest { .. }
        | LayerError::DiffId { .. }
        | LayerError::Lower
        | LayerError::ConverterFailed { .. } => ErrorKind::FailedPrecondition,
    }
}

fn store_kind(error: &io::Error) -> ErrorKind {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ErrorKind::ResourceExhausted,
        _ => ErrorKind::Internal,
    }
}
