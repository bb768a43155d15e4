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
    /// Not reached.
    #[error("{host}: {reason}")]
    Unreachable {
        /// The host.
        host: String,
        /// The chain of causes.
        reason: String,
    },
    /// The connection broke.
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
        let (host, unreachable) = (host.to_owned(), error.is_connect());
        let reason = causes(&error.without_url());
        if unreachable { Self::Unreachable { host, reason } } else { Self::Connection { host, reason } }
    }

    fn protocol(host: &str, reason: impl Into<String>) -> Self {
        Self::Protocol { host: host.to_owned(), reason: reason.into() }
    }

    /// Whether the same may succeed a little later. What a host answered was asked about again already.
    fn may_pass(&self, has_answered: bool, progressed: bool) -> bool {
        match self {
            Self::Connection { .. } => true,
            // Nobody knows whether there is such a host; one that was there may be starting again.
            Self::Unreachable { .. } => has_answered,
            Self::Stalled { .. } => progressed,
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

/// For the fuzz targets.
///
/// # Panics
/// A header leads to another scheme than HTTP, or from HTTPS to HTTP, or makes us wait for long.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) fn fuzz_answer(data: &[u8]) {
    use reqwest::header::{HeaderMap, HeaderValue, LOCATION, RETRY_AFTER};

    let message = endpoint::error_message(data).map(|message| printable(&message));
    assert!(message.is_none_or(|message| !message.contains('\n')));
    let Ok(value) = HeaderValue::from_bytes(data) else { return };
    let headers = HeaderMap::from_iter([(LOCATION, value.clone()), (RETRY_AFTER, value)]);
    for scheme in ["http", "https"] {
        let from = reqwest::Url::parse(&format!("{scheme}://registry.example/v2/a/blobs/b"));
        let target = from.ok().and_then(|from| redirect::target(&from, &headers).ok());
        assert!(
            target.is_none_or(
                |target| target.scheme() == "https" || (target.scheme(), scheme) == ("http", "http")
            )
        );
    }
    let wait = retry::wait_after(0, Some(&headers), std::time::UNIX_EPOCH);
    assert!(wait.is_none_or(|wait| wait.as_secs() <= 30));
}
