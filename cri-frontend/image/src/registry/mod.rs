//! Registries: which hosts serve a name, how to log in, and how to fetch.

mod auth;
mod auth_file;
mod blob;
mod challenge;
mod client;
mod endpoint;
mod hosts;
mod hosts_file;
mod redirect;
mod retry;
mod stall;

use std::{io, path::PathBuf};

pub(crate) use blob::download;
pub(crate) use client::{Fetched, Registry};

use reqwest::StatusCode;

/// Why a registry did not give what was asked for. Never holds a URL with its query, or a credential.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// A file in `images.certs_dir`.
    #[error("{path:?}: {reason}")]
    HostsFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The credentials' file.
    #[error("cannot use the credentials in {path:?} (images.auth_file): {reason}")]
    AuthFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The credentials given with the request.
    #[error("the credentials given for {host} cannot be used: {reason}")]
    Credentials {
        /// The registry's host.
        host: String,
        /// What is wrong with them.
        reason: &'static str,
    },
    /// No host may be asked.
    #[error("no host is configured to {capability} images of {registry} (hosts.toml)")]
    NoHost {
        /// The registry.
        registry: String,
        /// "resolve" or "pull".
        capability: &'static str,
    },
    /// Not reached, or the connection broke.
    #[error("{host}: {reason}")]
    Connection {
        /// The host.
        host: String,
        /// The chain of causes.
        reason: String,
    },
    /// No progress.
    #[error("{host} sent too little for {seconds} s (images.progress_timeout_s)")]
    Stalled {
        /// The host.
        host: String,
        /// How long was waited.
        seconds: u64,
    },
    /// An answer that says no.
    #[error("{host} answered {status}{message}")]
    Status {
        /// The host.
        host: String,
        /// HTTP's status.
        status: StatusCode,
        /// What the registry said, with a separator before it.
        message: String,
    },
    /// An answer that makes no sense.
    #[error("{host}: {reason}")]
    Protocol {
        /// The host.
        host: String,
        /// What is wrong with it.
        reason: String,
    },
    /// More than allowed.
    #[error("{host}: {what} is larger than {limit} bytes")]
    TooLarge {
        /// The host.
        host: String,
        /// What.
        what: &'static str,
        /// How much is allowed.
        limit: u64,
    },
    /// The receiver is gone: its own error says why.
    #[error("nobody takes the data any more")]
    Abandoned,
}

impl RegistryError {
    fn connection(host: &str, error: reqwest::Error) -> Self {
        Self::Connection { host: host.to_owned(), reason: causes(&error.without_url()) }
    }

    fn protocol(host: &str, reason: impl Into<String>) -> Self {
        Self::Protocol { host: host.to_owned(), reason: reason.into() }
    }

    /// Whether the same request may succeed a little later.
    fn is_transient(&self) -> bool {
        match self {
            Self::Connection { .. } | Self::Stalled { .. } => true,
            Self::Status { status, .. } => is_transient(*status),
            _ => false,
        }
    }
}

fn is_transient(status: StatusCode) -> bool {
    status == StatusCode::TOO_MANY_REQUESTS
        || status == StatusCode::REQUEST_TIMEOUT
        || status.is_server_error()
}

/// An error with its causes, each said once.
fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}

/// What a registry wrote, fit for a message: short, and without control characters.
fn printable(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(300).collect()
}

fn not_found(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

/// For the fuzz targets.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) fn fuzz_challenge(text: &str) {
    let _ = challenge::best([text].into_iter());
}

/// For the fuzz targets.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) fn fuzz_hosts_file(text: &str) {
    let _ = hosts_file::parse(text, std::path::Path::new("/certs.d/host"));
}
