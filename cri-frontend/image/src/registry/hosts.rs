//! Which hosts serve a registry's images, in which order, and how they are reached.

use std::{
    fs,
    net::IpAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use a3s_box_proto::config::Images;
use reqwest::{Certificate, Client, Identity, header::HeaderMap, redirect};

use super::{
    RegistryError, causes,
    hosts_file::{self, HostConfig},
};

const DOCKER_HUB: &str = "docker.io";
const DOCKER_HUB_HOST: &str = "registry-1.docker.io";
const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);

/// What a host may be asked.
#[derive(Debug, Clone, Copy)]
pub(super) struct Capabilities {
    /// Manifests by digest, and blobs.
    pub pull: bool,
    /// What a tag stands for.
    pub resolve: bool,
}

impl Default for Capabilities {
    fn default() -> Self {
        Self { pull: true, resolve: true }
    }
}

/// How a host is trusted, and what is shown to it.
#[derive(Debug, Default)]
pub(super) struct Tls {
    /// Files with certificates to trust besides the system's.
    pub authorities: Vec<PathBuf>,
    /// Client certificates, with their keys unless they are in the same file.
    pub clients: Vec<(PathBuf, Option<PathBuf>)>,
    /// Any certificate will do.
    pub skip_verify: Option<bool>,
}

impl Tls {
    fn is_set(&self) -> bool {
        !self.authorities.is_empty() || !self.clients.is_empty() || self.skip_verify.is_some()
    }
}

/// A host to ask.
#[derive(Debug)]
pub(super) struct Host {
    /// `host[:port]`.
    pub authority: String,
    /// The schemes to try; a second one only if the first cannot connect.
    pub schemes: Vec<&'static str>,
    /// The API's root: `/v2`.
    pub path: String,
    /// What it may be asked.
    pub capabilities: Capabilities,
    /// Sent with each request to it, and to no other.
    pub headers: HeaderMap,
    /// It serves the images of another registry, whose name it must be told.
    pub is_mirror: bool,
    /// Connections to it.
    pub client: Client,
}

/// The hosts for a registry, in the order in which they are to be asked. Reads files.
pub(super) fn hosts(config: &Images, registry: &str) -> Result<Vec<Host>, RegistryError> {
    let configured = hosts_file::load(&config.certs_dir, registry)?;
    let configured = configured.unwrap_or_else(|| vec![HostConfig::default()]);
    configured.into_iter().map(|host| resolve(config, registry, host)).collect()
}

fn resolve(config: &Images, registry: &str, host: HostConfig) -> Result<Host, RegistryError> {
    let HostConfig { address, capabilities, mut tls, headers, dial_timeout } = host;
    let (scheme, authority, path, capabilities) = match address {
        Some((scheme, authority, path)) => (scheme, authority, path, capabilities),
        None => {
            let (scheme, authority) = own_address(config, registry, &mut tls);
            (scheme.to_owned(), authority, "/v2".to_owned(), Capabilities::default())
        }
    };
    // As containerd: TLS settings for an HTTP address mean that HTTPS is tried first.
    let schemes = match scheme.as_str() {
        "http" if tls.is_set() && port(&authority) != Some("80") => vec!["https", "http"],
        "http" => vec!["http"],
        _ => vec!["https"],
    };
    let own = if registry == DOCKER_HUB { DOCKER_HUB_HOST } else { registry };
    let client = client(&tls, &authority, dial_timeout.unwrap_or(CONNECT_TIMEOUT))?;
    Ok(Host { is_mirror: authority != own, authority, schemes, path, capabilities, headers, client })
}

/// Where a registry is by its name alone.
fn own_address(config: &Images, registry: &str, tls: &mut Tls) -> (&'static str, String) {
    if registry == DOCKER_HUB {
        return ("https", DOCKER_HUB_HOST.to_owned());
    }
    if config.insecure_registries.iter().any(|insecure| insecure == registry) {
        return ("http", registry.to_owned());
    }
    if !is_loopback(registry) {
        return ("https", registry.to_owned());
    }
    let port = port(registry);
    if port != Some("80") {
        tls.skip_verify.get_or_insert(true);
    }
    (if matches!(port, None | Some("443")) { "https" } else { "http" }, registry.to_owned())
}

fn port(authority: &str) -> Option<&str> {
    let (host, port) = authority.rsplit_once(':')?;
    (!host.starts_with('[') || host.ends_with(']')).then_some(port)
}

/// Whether a registry is on this machine.
fn is_loopback(registry: &str) -> bool {
    let host = port(registry).map_or(registry, |port| &registry[..registry.len() - port.len() - 1]);
    let address: Option<IpAddr> = host.trim_matches(['[', ']']).parse().ok();
    host == "localhost" || address.is_some_and(|address| address.is_loopback())
}

fn client(tls: &Tls, authority: &str, connect_timeout: Duration) -> Result<Client, RegistryError> {
    // Redirects are followed by hand, because what may go along depends on where they lead.
    let mut builder = Client::builder()
        .redirect(redirect::Policy::none())
        .connect_timeout(connect_timeout)
        .user_agent(concat!("a3s-box/", env!("CARGO_PKG_VERSION")));
    // As Go's clients: no proxy can reach this machine's own addresses, whatever the environment says.
    if is_loopback(authority) {
        builder = builder.no_proxy();
    }
    for path in &tls.authorities {
        let certificates =
            Certificate::from_pem_bundle(&read(path)?).map_err(|error| wrong(path, causes(&error)))?;
        if certificates.is_empty() {
            return Err(wrong(path, "no certificate in PEM form in it"));
        }
        builder = builder.tls_certs_merge(certificates);
    }
    if let [(certificate, key), others @ ..] = tls.clients.as_slice() {
        if !others.is_empty() {
            return Err(wrong(certificate, "more than one client certificate for a host is not supported"));
        }
        let mut pem = read(certificate)?;
        if let Some(key) = key {
            pem.push(b'\n');
            pem.extend(read(key)?);
        }
        let identity = Identity::from_pem(&pem).map_err(|error| wrong(certificate, causes(&error)))?;
        builder = builder.identity(identity);
    }
    if tls.skip_verify == Some(true) {
        builder = builder.tls_danger_accept_invalid_certs(true);
    }
    builder.build().map_err(|error| wrong(Path::new("TLS"), causes(&error)))
}

fn read(path: &Path) -> Result<Vec<u8>, RegistryError> {
    fs::read(path).map_err(|error| wrong(path, error.to_string()))
}

fn wrong(path: &Path, reason: impl Into<String>) -> RegistryError {
    RegistryError::HostsFile { path: path.to_owned(), reason: reason.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own(registry: &str) -> (Vec<&'static str>, String) {
        let config = Images {
            certs_dir: "/nonexistent".into(),
            insecure_registries: vec!["plain.example:5000".into()],
            ..Images::default()
        };
        let mut tls = Tls::default();
        let (scheme, authority) = own_address(&config, registry, &mut tls);
        let fallback = scheme == "http" && tls.is_set();
        (if fallback { vec!["https", "http"] } else { vec![scheme] }, authority)
    }

    #[test]
    fn http_is_for_loopback_and_configured_registries_only() {
        for (registry, schemes) in [
            ("r.example", vec!["https"]),
            ("r.example:80", vec!["https"]),
            ("plain.example:5000", vec!["http"]),
            ("localhost:5000", vec!["https", "http"]),
            ("127.0.0.1:5000", vec!["https", "http"]),
            ("[::1]:5000", vec!["https", "http"]),
            ("localhost:80", vec!["http"]),
            ("localhost", vec!["https"]),
            ("127.0.0.1.evil.example:5000", vec!["https"]),
        ] {
            assert_eq!(own(registry), (schemes, registry.to_owned()), "{registry}");
        }
        assert_eq!(own("docker.io").1, "registry-1.docker.io");
    }
}
