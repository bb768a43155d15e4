//! What must outlive the frontend, and how it finds its pods again.

mod db;
mod reconcile;
mod record;
mod tables;
pub mod wire;

use std::{io, path::PathBuf};

pub use db::{Db, Loaded, open};
pub use reconcile::reconcile;
pub use record::{Record, Tracked};
pub use tables::Table;

use crate::error::{Kind, kind_of_io};

/// Why records cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// A file operation failed.
    #[error("records: cannot {action} {path}: {source}")]
    File {
        /// "open", "set aside", …
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// Someone else works with the same directory.
    #[error("{path} is in use by another frontend")]
    InUse {
        /// The lock's file.
        path: PathBuf,
    },
    /// The database refused.
    #[error("records: cannot {action}: {source}")]
    Database {
        /// "open", "write", …
        action: &'static str,
        /// The cause.
        source: Box<redb::Error>,
    },
    /// A record that cannot be encoded.
    #[error("records: cannot encode {key}: {source}")]
    Encode {
        /// The record's key.
        key: String,
        /// The cause.
        source: serde_json::Error,
    },
    /// The commit that this write was part of failed.
    #[error("records: {0}")]
    NotWritten(String),
}

impl StateError {
    /// What the caller has to deal with.
    pub fn kind(&self) -> Kind {
        match self {
            Self::File { source, .. } => kind_of_io(source),
            Self::InUse { .. } => Kind::FailedPrecondition,
            Self::Database { .. } | Self::Encode { .. } | Self::NotWritten(_) => Kind::Internal,
        }
    }
}
