//! docker's `config.json`: credentials by registry.

use std::{collections::BTreeMap, fs::File, io::Read, path::Path};

use serde::Deserialize;

use super::RegistryError;
use crate::Credentials;

const MAX_SIZE: u64 = 1 << 20;

#[derive(Deserialize)]
struct ConfigFile {
    #[serde(default)]
    auths: BTreeMap<String, Auth>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Auth {
    auth: String,
    username: String,
    password: String,
    identitytoken: String,
    registrytoken: String,
}

/// The credentials for a registry. Reads the file, because it may be renewed at any time.
pub(super) fn find(path: &Path, registry: &str) -> Result<Option<Credentials>, RegistryError> {
    if path.as_os_str().is_empty() {
        return Ok(None);
    }
    let failed = |reason: String| RegistryError::AuthFile { path: path.to_owned(), reason };
    let mut text = String::new();
    let file = File::open(path).map_err(|error| failed(error.to_string()))?;
    file.take(MAX_SIZE).read_to_string(&mut text).map_err(|error| failed(error.to_string()))?;
    // The parser's message could quote a secret; its position cannot.
    let parsed: ConfigFile = serde_json::from_str(&text)
        .map_err(|error| failed(format!("not valid at line {}, column {}", error.line(), error.column())))?;
    let found = parsed.auths.into_iter().find(|(key, _)| is_whole(key) && same_registry(key, registry));
    Ok(found.map(|(_, auth)| Credentials {
        username: auth.username,
        password: auth.password,
        auth: auth.auth,
        server_address: String::new(),
        identity_token: auth.identitytoken,
        registry_token: auth.registrytoken,
    }))
}

/// Whether an address, in any form that docker or kubelet writes, is a registry's.
pub(super) fn same_registry(address: &str, registry: &str) -> bool {
    let host = address.trim_start_matches("https://").trim_start_matches("http://");
    let host = host.split('/').next().unwrap_or_default();
    canonical(host) == canonical(registry)
}

/// Whether an address is a registry's, and none within it: beside Docker Hub's `/v1/`, docker's own sign-in keeps tokens
/// under `/v1/access-token` and `/v1/refresh-token`, which no registry takes.
fn is_whole(address: &str) -> bool {
    let address = address.trim_start_matches("https://").trim_start_matches("http://");
    let path = address.split_once('/').map_or("", |(_, path)| path);
    matches!(path.trim_end_matches('/'), "" | "v1" | "v2")
}

/// Docker Hub has three names.
fn canonical(host: &str) -> &str {
    match host {
        "index.docker.io" | "registry-1.docker.io" => "docker.io",
        host => host,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registries_are_found_by_any_form_of_their_address() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("config.json");
        let text = r#"{"auths": {"https://index.docker.io/v1/": {"auth": "aHVi"},
            "r.example:5000": {"username": "u", "password": "p"}}, "credsStore": "x"}"#;
        std::fs::write(&path, text).unwrap();
        assert_eq!(find(&path, "docker.io").unwrap().unwrap().auth, "aHVi");
        assert_eq!(find(&path, "r.example:5000").unwrap().unwrap().username, "u");
        assert!(find(&path, "r.example").unwrap().is_none());
        assert!(find(Path::new(""), "r.example").unwrap().is_none());
    }

    #[test]
    fn tokens_of_dockers_sign_in_are_no_credentials() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("config.json");
        let text = r#"{"auths": {"https://index.docker.io/v1/access-token": {"auth": "YQ=="},
            "https://index.docker.io/v1/": {"auth": "aHVi"},
            "https://index.docker.io/v1/refresh-token": {"auth": "cg=="}}}"#;
        std::fs::write(&path, text).unwrap();
        assert_eq!(find(&path, "docker.io").unwrap().unwrap().auth, "aHVi");
    }

    #[test]
    fn a_broken_file_is_named_and_not_quoted() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("config.json");
        std::fs::write(&path, r#"{"auths": {"r": "c2VjcmV0"}}"#).unwrap();
        let error = find(&path, "r").unwrap_err().to_string();
        assert!(error.contains("config.json") && !error.contains("c2VjcmV0"), "{error}");
    }
}
