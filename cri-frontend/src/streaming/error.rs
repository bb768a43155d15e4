//! Why the server cannot be had.

use std::{io, net::SocketAddr, path::PathBuf};

/// A problem of the configuration or of the machine.
#[derive(Debug, thiserror::Error)]
pub enum StreamingError {
    /// The address is taken, or none of ours.
    #[error("streaming.address {address}: cannot listen: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The cause.
        source: io::Error,
    },
    /// A PEM file cannot be read, or holds nothing of use.
    #[error("{key} {path}: {reason}")]
    Pem {
        /// The configuration's key.
        key: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// Certificate and key do not fit, or are of a kind that is not served.
    #[error("streaming.tls_cert and streaming.tls_key cannot be used together: {0}")]
    Tls(#[from] tokio_rustls::rustls::Error),
}
