//! TLS with the certificate of the configuration.

use std::{path::Path, sync::Arc};

use a3s_box_proto::config::Streaming;
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        ServerConfig,
        crypto::ring,
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    },
};

use super::error::StreamingError;

/// What answers TLS handshakes; none where the configuration names no certificate.
///
/// # Errors
/// A file cannot be read, or is not what it should be.
pub fn acceptor(config: &Streaming) -> Result<Option<TlsAcceptor>, StreamingError> {
    if config.tls_cert.as_os_str().is_empty() {
        return Ok(None);
    }
    let wrong = |key, path: &Path| {
        let path = path.to_owned();
        move |reason: String| StreamingError::Pem { key, path, reason }
    };
    let chain = CertificateDer::pem_file_iter(&config.tls_cert)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| wrong("streaming.tls_cert", &config.tls_cert)(error.to_string()))?;
    if chain.is_empty() {
        return Err(wrong("streaming.tls_cert", &config.tls_cert)("it holds no certificate".into()));
    }
    let key = PrivateKeyDer::from_pem_file(&config.tls_key)
        .map_err(|error| wrong("streaming.tls_key", &config.tls_key)(error.to_string()))?;
    let server = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    Ok(Some(TlsAcceptor::from(Arc::new(server))))
}
