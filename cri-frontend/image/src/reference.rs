//! Names of images, normalised as containerd does (`distribution/reference`).

use std::fmt;

use crate::digest::Digest;

const DEFAULT_REGISTRY: &str = "docker.io";
const DEFAULT_TAG: &str = "latest";
const MAX_NAME: usize = 255;
const MAX_TAG: usize = 128;

/// A full name: registry, repository, and which image of it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Reference {
    /// `host[:port]`.
    pub registry: String,
    /// The path on it.
    pub repository: String,
    /// Which image.
    pub version: Version,
}

/// Which image of a repository.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Version {
    /// Whatever the tag stands for now.
    Tag(String),
    /// Exactly this one. A tag beside a digest means nothing.
    Digest(Digest),
}

/// A text that is no image reference.
#[derive(Debug, thiserror::Error)]
#[error("{text:?} is no image reference: {reason}")]
pub struct BadReference {
    text: String,
    reason: &'static str,
}

impl Reference {
    /// Reads a name in any form that containerd takes.
    pub(crate) fn parse(text: &str) -> Result<Self, BadReference> {
        parse(text).map_err(|reason| BadReference { text: text.chars().take(300).collect(), reason })
    }

    /// `registry/repository`.
    pub(crate) fn name(&self) -> String {
        format!("{}/{}", self.registry, self.repository)
    }

    /// `registry/repository@digest`.
    pub(crate) fn with_digest(&self, digest: &Digest) -> String {
        format!("{}@{digest}", self.name())
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.version {
            Version::Tag(tag) => write!(formatter, "{}/{}:{tag}", self.registry, self.repository),
            Version::Digest(digest) => write!(formatter, "{}/{}@{digest}", self.registry, self.repository),
        }
    }
}

fn parse(text: &str) -> Result<Reference, &'static str> {
    if Digest::from_hex(text).is_some() {
        return Err("64 hexadecimal digits are an image id");
    }
    let (text, digest) = match text.split_once('@') {
        Some((text, digest)) => {
            let digest =
                digest.parse::<Digest>().map_err(|_| "its digest is not sha256:<64 hexadecimal digits>")?;
            (text, Some(digest))
        }
        None => (text, None),
    };
    let (registry, rest) = split_registry(text);
    let (path, tag) = match rest.rsplit_once(':') {
        Some((path, tag)) => (path, Some(tag)),
        None => (rest, None),
    };
    if tag.is_some_and(|tag| !is_tag(tag)) {
        return Err("its tag has other characters than A-Za-z0-9_.- or is too long");
    }
    if !is_registry(registry) {
        return Err("its registry is no host[:port]");
    }
    let official = registry == DEFAULT_REGISTRY && !path.contains('/');
    let repository = if official { format!("library/{path}") } else { path.to_owned() };
    if !repository.split('/').all(is_path_component) {
        return Err("its repository must be lower-case words separated by / . _ -");
    }
    if registry.len() + 1 + repository.len() > MAX_NAME {
        return Err("its name is longer than 255 characters");
    }
    let version = match (digest, tag) {
        (Some(digest), _) => Version::Digest(digest),
        (None, tag) => Version::Tag(tag.unwrap_or(DEFAULT_TAG).to_owned()),
    };
    Ok(Reference { registry: registry.to_owned(), repository, version })
}

/// The first part is a registry if it could be a host; else it belongs to Docker Hub's path.
fn split_registry(text: &str) -> (&str, &str) {
    match text.split_once('/') {
        Some(("index.docker.io", rest)) => (DEFAULT_REGISTRY, rest),
        Some((first, rest))
            if first.contains(['.', ':'])
                || first == "localhost"
                || first.bytes().any(|byte| byte.is_ascii_uppercase()) =>
        {
            (first, rest)
        }
        _ => (DEFAULT_REGISTRY, text),
    }
}

fn is_registry(text: &str) -> bool {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (text, None),
    };
    let port_fits =
        port.is_none_or(|port| !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()));
    if let Some(address) = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        return port_fits && address.parse::<std::net::Ipv6Addr>().is_ok();
    }
    port_fits && host.split('.').all(is_host_label)
}

fn is_host_label(label: &str) -> bool {
    let valid = label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    valid && !label.is_empty() && !label.starts_with('-') && !label.ends_with('-')
}

fn is_tag(tag: &str) -> bool {
    let valid = tag.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-'));
    valid && (1..=MAX_TAG).contains(&tag.len()) && !tag.starts_with(['.', '-'])
}

/// Words of `[a-z0-9]+` with one `.`, one or two `_`, or any number of `-` between them.
fn is_path_component(component: &str) -> bool {
    let is_word = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = component.as_bytes();
    let ends_fit =
        bytes.first().is_some_and(|byte| is_word(*byte)) && bytes.last().is_some_and(|byte| is_word(*byte));
    let separators = component.split(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit());
    ends_fit
        && separators.filter(|separator| !separator.is_empty()).all(|separator| {
            matches!(separator, "." | "_" | "__") || separator.bytes().all(|byte| byte == b'-')
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEX: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn normal(text: &str) -> String {
        Reference::parse(text).unwrap().to_string()
    }

    #[test]
    fn names_are_normalised_as_containerd_does() {
        let digest = format!("sha256:{HEX}");
        for (text, full) in [
            ("busybox", "docker.io/library/busybox:latest".to_owned()),
            ("busybox:1.36", "docker.io/library/busybox:1.36".into()),
            ("a/b", "docker.io/a/b:latest".into()),
            ("docker.io/busybox", "docker.io/library/busybox:latest".into()),
            ("index.docker.io/busybox", "docker.io/library/busybox:latest".into()),
            ("localhost/x", "localhost/x:latest".into()),
            ("localhost:5000/x/y:v1", "localhost:5000/x/y:v1".into()),
            ("127.0.0.1:5000/x", "127.0.0.1:5000/x:latest".into()),
            ("[::1]:5000/x:t", "[::1]:5000/x:t".into()),
            ("[fe80::1]/x", "[fe80::1]/x:latest".into()),
            ("Registry/x", "Registry/x:latest".into()),
            ("r.io/a__b/c-d--e.f", "r.io/a__b/c-d--e.f:latest".into()),
            (&format!("r.io/x@{digest}"), format!("r.io/x@{digest}")),
            (&format!("r.io/x:tag@{digest}"), format!("r.io/x@{digest}")),
        ] {
            assert_eq!(normal(text), full, "{text}");
            assert_eq!(normal(&full), full, "{full}");
        }
    }

    #[test]
    fn what_is_no_reference_is_refused() {
        let long = "x".repeat(256);
        for text in [
            "",
            ":",
            "/",
            "UPPER",
            "a//b",
            "a/",
            "x:",
            "x:.tag",
            "x:t/",
            "-r.io/x",
            "r.io:port/x",
            "r.io:/x",
            "[::g]/x",
            "x@",
            "x@sha256:12",
            "x@md5:d41d8cd98f00b204e9800998ecf8427e",
            "a___b",
            "a..b",
            "_a",
            "a b",
            "a\nb",
            "https://r.io/x",
            "../x",
            "r.io/../x",
            HEX,
            &long,
            "x:t:u",
            "r..io/x",
            "é/x",
        ] {
            assert!(
                Reference::parse(text).is_err(),
                "{text:?} is {:?}",
                Reference::parse(text).map(|r| r.to_string())
            );
        }
    }
}
