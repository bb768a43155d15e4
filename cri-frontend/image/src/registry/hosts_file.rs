//! `certs.d/<host>/hosts.toml` and, where that is absent, docker's certificate files: as containerd reads them.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use serde::Deserialize;

use super::{
    RegistryError,
    hosts::{Capabilities, Tls},
    not_found,
};

/// What may be said of a host.
const KEYS: [&str; 7] =
    ["capabilities", "ca", "client", "skip_verify", "header", "override_path", "dial_timeout"];

/// One host as configured; no address means the registry's own.
#[derive(Debug, Default)]
pub(super) struct HostConfig {
    /// Scheme, `host[:port]` and the API's path.
    pub address: Option<(String, String, String)>,
    /// What it may be asked.
    pub capabilities: Capabilities,
    /// How to trust it.
    pub tls: Tls,
    /// Sent with each request.
    pub headers: HeaderMap,
    /// For one connection attempt.
    pub dial_timeout: Option<Duration>,
}

#[derive(Deserialize)]
struct HostsFile {
    server: Option<String>,
    #[serde(default)]
    host: toml::Table,
    #[serde(flatten)]
    own: Section,
}

#[derive(Deserialize, Default)]
struct Section {
    #[serde(default)]
    capabilities: Vec<String>,
    ca: Option<OneOrMany>,
    client: Option<Clients>,
    skip_verify: Option<bool>,
    #[serde(default)]
    header: std::collections::BTreeMap<String, OneOrMany>,
    #[serde(default)]
    override_path: bool,
    dial_timeout: Option<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

impl OneOrMany {
    fn into_vec(self) -> Vec<String> {
        match self {
            Self::One(value) => vec![value],
            Self::Many(values) => values,
        }
    }
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Clients {
    One(String),
    Many(Vec<Client>),
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Client {
    Combined(String),
    Pair([String; 2]),
}

/// The hosts configured for a registry, the registry's own last; nothing if nothing is configured.
pub(super) fn load(certs_dir: &Path, registry: &str) -> Result<Option<Vec<HostConfig>>, RegistryError> {
    let Some(directory) = directory(certs_dir, registry)? else { return Ok(None) };
    let path = directory.join("hosts.toml");
    let wrong = |reason: String| RegistryError::HostsFile { path: path.clone(), reason };
    match fs::read_to_string(&path) {
        Ok(text) if !text.is_empty() => parse(&text, &directory).map(Some).map_err(wrong),
        Ok(_) => certificate_files(&directory).map(Some),
        Err(error) if not_found(&error) => certificate_files(&directory).map(Some),
        Err(error) => Err(wrong(error.to_string())),
    }
}

/// `host_port_`, `hostport` without the colon, `host:port`, `_default`: the first that is there.
fn directory(certs_dir: &Path, registry: &str) -> Result<Option<PathBuf>, RegistryError> {
    let mut names = Vec::new();
    if let Some((host, port)) = registry.rsplit_once(':') {
        names.push(format!("{host}_{port}_").replace(':', ""));
    }
    names.extend([registry.replace(':', ""), registry.to_owned(), "_default".to_owned()]);
    for path in names.iter().map(|name| certs_dir.join(name)) {
        match fs::metadata(&path) {
            Ok(_) => return Ok(Some(path)),
            Err(error) if not_found(&error) => {}
            Err(error) => return Err(RegistryError::HostsFile { path, reason: error.to_string() }),
        }
    }
    Ok(None)
}

/// Reads a `hosts.toml` that stands in a directory.
pub(super) fn parse(text: &str, directory: &Path) -> Result<Vec<HostConfig>, String> {
    let file: HostsFile = toml::from_str(text).map_err(|error| error.to_string())?;
    let unknown = |host: &str, key: &str| {
        tracing::warn!(?directory, host, key, "hosts.toml has a key that is not known");
    };
    let table: toml::Table = toml::from_str(text).map_err(|error| error.to_string())?;
    unknown_keys(&table).filter(|key| !matches!(*key, "server" | "host")).for_each(|key| unknown("", key));
    let mut hosts = Vec::new();
    for (address, section) in file.host {
        if let Some(section) = section.as_table() {
            unknown_keys(section).for_each(|key| unknown(&address, key));
        }
        let section: Section =
            section.try_into().map_err(|error: toml::de::Error| format!("host {address:?}: {error}"))?;
        let host = host(Some(&address), section, directory);
        hosts.push(host.map_err(|reason| format!("host {address:?}: {reason}"))?);
    }
    hosts.push(host(file.server.as_deref().filter(|server| !server.is_empty()), file.own, directory)?);
    Ok(hosts)
}

/// containerd's may learn more than we know, and reads the same file: they are no error.
fn unknown_keys(section: &toml::Table) -> impl Iterator<Item = &str> {
    section.keys().map(String::as_str).filter(|key| !KEYS.contains(key))
}

fn host(address: Option<&str>, section: Section, directory: &Path) -> Result<HostConfig, String> {
    let tls = Tls {
        authorities: section
            .ca
            .map(OneOrMany::into_vec)
            .unwrap_or_default()
            .into_iter()
            .map(|path| directory.join(path))
            .collect(),
        clients: clients(section.client, directory),
        skip_verify: section.skip_verify,
    };
    Ok(HostConfig {
        address: address.map(|address| split_address(address, section.override_path)).transpose()?,
        capabilities: capabilities(&section.capabilities)?,
        tls,
        headers: headers(section.header)?,
        dial_timeout: section.dial_timeout.as_deref().map(duration).transpose()?,
    })
}

fn split_address(address: &str, override_path: bool) -> Result<(String, String, String), String> {
    let whole = if address.contains("://") { address.to_owned() } else { format!("https://{address}") };
    let url = reqwest::Url::parse(&whole).map_err(|error| error.to_string())?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(format!("scheme {:?} is neither http nor https", url.scheme()));
    }
    let host = url.host_str().ok_or("no host")?;
    let authority = url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
    let mut path = url.path().trim_end_matches('/').to_owned();
    if !override_path && !path.ends_with("/v2") {
        path.push_str("/v2");
    }
    Ok((url.scheme().to_owned(), authority, path))
}

fn capabilities(names: &[String]) -> Result<Capabilities, String> {
    if names.is_empty() {
        return Ok(Capabilities::default());
    }
    let mut capabilities = Capabilities { pull: false, resolve: false };
    for name in names {
        match name.to_lowercase().as_str() {
            "pull" => capabilities.pull = true,
            "resolve" => capabilities.resolve = true,
            "push" | "referrers" => {}
            _ => return Err(format!("unknown capability {name:?}")),
        }
    }
    Ok(capabilities)
}

fn clients(clients: Option<Clients>, directory: &Path) -> Vec<(PathBuf, Option<PathBuf>)> {
    let pairs = match clients {
        None => return Vec::new(),
        Some(Clients::One(path)) => vec![Client::Combined(path)],
        Some(Clients::Many(clients)) => clients,
    };
    let absolute = pairs.into_iter().map(|client| match client {
        Client::Combined(path) => (directory.join(path), None),
        Client::Pair([certificate, key]) => (directory.join(certificate), Some(directory.join(key))),
    });
    absolute.collect()
}

fn headers(section: std::collections::BTreeMap<String, OneOrMany>) -> Result<HeaderMap, String> {
    let mut headers = HeaderMap::new();
    for (name, values) in section {
        let header: HeaderName = name.parse().map_err(|_| format!("bad header name {name:?}"))?;
        for value in values.into_vec() {
            // The value may be a secret: it is not repeated.
            let mut value =
                HeaderValue::from_str(&value).map_err(|_| format!("bad value of header {name:?}"))?;
            value.set_sensitive(true);
            headers.append(header.clone(), value);
        }
    }
    Ok(headers)
}

/// Go's durations, as far as a timeout needs them: "500ms", "10s", "1m", "1m30s".
fn duration(text: &str) -> Result<Duration, String> {
    let bad = || format!("bad duration {text:?} (\"500ms\", \"10s\", \"1m30s\")");
    let (mut rest, mut total) = (text, Duration::ZERO);
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(bad)?;
        let number: f64 = rest[..digits].parse().map_err(|_| bad())?;
        rest = &rest[digits..];
        let end = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        let unit = match &rest[..end] {
            "ms" => 0.001,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return Err(bad()),
        };
        let part = Duration::try_from_secs_f64(number * unit).map_err(|_| bad())?;
        total = total.checked_add(part).ok_or_else(bad)?;
        rest = &rest[end..];
    }
    if total.is_zero() { Err(bad()) } else { Ok(total) }
}

/// Docker's layout: `*.crt` to trust, `*.cert` with `*.key` to show.
fn certificate_files(directory: &Path) -> Result<Vec<HostConfig>, RegistryError> {
    let mut tls = Tls::default();
    let failed =
        |error: io::Error| RegistryError::HostsFile { path: directory.to_owned(), reason: error.to_string() };
    let mut paths = Vec::new();
    for entry in fs::read_dir(directory).map_err(failed)? {
        paths.push(entry.map_err(failed)?.path());
    }
    paths.sort();
    for path in paths {
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("crt") => tls.authorities.push(path),
            Some("cert") => {
                let key = path.with_extension("key");
                let key = key.exists().then_some(key);
                tls.clients.push((path, key));
            }
            _ => {}
        }
    }
    Ok(vec![HostConfig { tls, ..HostConfig::default() }])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_keep_their_order_and_the_server_comes_last() {
        let text = r#"
            server = "https://upstream.example"
            [host."http://mirror-b.example:5000"]
            capabilities = ["pull"]
            [host."http://mirror-b.example:5000".header]
            x-one = "1"
            x-two = ["a", "b"]
            [host."mirror-a.example/custom"]
            override_path = true
            skip_verify = true
            ca = ["ca.pem", "/abs.pem"]
            client = [["c.pem", "k.pem"], "both.pem"]
            dial_timeout = "1m30s"
        "#;
        let hosts = parse(text, Path::new("/d")).unwrap();
        let addresses: Vec<_> = hosts.iter().map(|host| host.address.clone().unwrap()).collect();
        let address =
            |scheme: &str, host: &str, path: &str| (scheme.to_owned(), host.to_owned(), path.to_owned());
        assert_eq!(
            addresses,
            [
                address("http", "mirror-b.example:5000", "/v2"),
                address("https", "mirror-a.example", "/custom"),
                address("https", "upstream.example", "/v2"),
            ]
        );
        assert!(hosts[0].capabilities.pull && !hosts[0].capabilities.resolve);
        assert_eq!(hosts[0].headers.len(), 3);
        assert_eq!(hosts[1].tls.authorities, [PathBuf::from("/d/ca.pem"), PathBuf::from("/abs.pem")]);
        assert_eq!(hosts[1].tls.clients.len(), 2);
        assert_eq!(hosts[1].tls.skip_verify, Some(true));
        assert_eq!(hosts[1].dial_timeout, Some(Duration::from_secs(90)));
    }

    #[test]
    fn keys_that_nobody_knows_are_told() {
        let section = toml::from_str("ca = 'a'\nskip-verify = true\noverride_path = true").unwrap();
        assert_eq!(unknown_keys(&section).collect::<Vec<_>>(), ["skip-verify"]);
        assert!(parse("[host.'https://a']\nskip-verify = true", Path::new("/d")).is_ok());
    }

    #[test]
    fn mistakes_are_named() {
        for (text, word) in [
            ("[host.'https://a']\ncapabilities = ['fly']", "fly"),
            ("[host.'ftp+http://a']", "ftp"),
            ("dial_timeout = 'soon'", "soon"),
            ("dial_timeout = '10000000000000000000s10000000000000000000s'", "bad duration"),
            ("host = 3", "host"),
        ] {
            let reason = parse(text, Path::new("/d")).unwrap_err();
            assert!(reason.contains(word), "{text}: {reason}");
        }
    }

    #[test]
    fn a_directory_is_found_by_each_of_its_names() {
        let certs = tempfile::tempdir().unwrap();
        assert!(load(certs.path(), "r.example:5000").unwrap().is_none());
        for name in ["_default", "r.example:5000", "r.example_5000_"] {
            fs::create_dir(certs.path().join(name)).unwrap();
            fs::write(
                certs.path().join(name).join("hosts.toml"),
                format!("server = 'https://{}'", name.replace([':', '_'], "x")),
            )
            .unwrap();
            let hosts = load(certs.path(), "r.example:5000").unwrap().unwrap();
            assert_eq!(hosts[0].address.as_ref().unwrap().1, name.replace([':', '_'], "x"));
        }
    }
}
