//! Manifests and indexes, in OCI's and docker's form.

use serde::{Deserialize, de::IgnoredAny};

use super::platform::Platform;
use crate::digest::Digest;

const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const LAYERS: [&str; 7] = [
    "application/vnd.oci.image.layer.v1.tar",
    "application/vnd.oci.image.layer.v1.tar+gzip",
    "application/vnd.oci.image.layer.v1.tar+zstd",
    "application/vnd.docker.image.rootfs.diff.tar",
    "application/vnd.docker.image.rootfs.diff.tar.gzip",
    "application/vnd.docker.image.rootfs.diff.tar.zstd",
    "application/vnd.docker.container.image.rootfs.diff+x-gtar",
];

/// Points to something by digest.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Descriptor {
    /// What it is.
    #[serde(default)]
    pub media_type: String,
    /// Which.
    pub digest: Digest,
    /// Its bytes.
    pub size: u64,
    /// What it is made for.
    pub platform: Option<Platform>,
}

/// An image for one platform.
#[derive(Debug, Clone)]
pub(super) struct Manifest {
    /// Its configuration.
    pub config: Descriptor,
    /// Its layers, the lowest first.
    pub layers: Vec<Descriptor>,
}

/// What a document is.
#[derive(Debug)]
pub(super) enum Document {
    /// An image.
    Manifest(Manifest),
    /// Images to choose from.
    Index(Vec<Descriptor>),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Raw {
    #[serde(default)]
    schema_version: u32,
    #[serde(default)]
    media_type: String,
    config: Option<Descriptor>,
    layers: Option<Vec<Descriptor>>,
    manifests: Option<Vec<Descriptor>>,
    #[serde(rename = "fsLayers")]
    fs_layers: Option<IgnoredAny>,
}

/// Whether a descriptor's type is an index's.
pub(super) fn is_index(media_type: &str) -> bool {
    matches!(media_type, OCI_INDEX | DOCKER_LIST)
}

/// Reads a document. Its own type counts before the registry's word for it.
pub(super) fn parse(body: &[u8], content_type: &str) -> Result<Document, String> {
    let raw: Raw =
        serde_json::from_slice(body).map_err(|error| format!("its manifest makes no sense: {error}"))?;
    if raw.schema_version == 1 || raw.fs_layers.is_some() {
        return Err("its manifest is of docker's schema 1, which is not supported".into());
    }
    // One document that can be read in two ways can show each reader another image (CVE-2021-41190).
    if raw.manifests.is_some() && (raw.layers.is_some() || raw.config.is_some()) {
        return Err("its manifest is an image and an index at once".into());
    }
    let kind = if raw.media_type.is_empty() { content_type } else { &raw.media_type };
    match (kind, raw.config, raw.layers, raw.manifests) {
        (OCI_INDEX | DOCKER_LIST, _, _, Some(manifests)) => Ok(Document::Index(manifests)),
        (OCI_MANIFEST | DOCKER_MANIFEST, Some(config), Some(layers), _) => manifest(config, layers),
        (OCI_INDEX | DOCKER_LIST | OCI_MANIFEST | DOCKER_MANIFEST, ..) => {
            Err(format!("its manifest lacks what its type {kind:?} must have"))
        }
        // A registry that doesn't know types: what the document holds says what it is.
        (
            "" | "application/json" | "text/plain" | "application/octet-stream",
            Some(config),
            Some(layers),
            _,
        ) => manifest(config, layers),
        ("" | "application/json" | "text/plain" | "application/octet-stream", _, _, Some(manifests)) => {
            Ok(Document::Index(manifests))
        }
        _ => Err(format!("the type {:?} of its manifest is not supported", shorten(kind))),
    }
}

fn manifest(config: Descriptor, layers: Vec<Descriptor>) -> Result<Document, String> {
    for Descriptor { media_type, digest, .. } in &layers {
        let media_type = media_type.as_str();
        if media_type.contains("nondistributable") || media_type.contains("rootfs.foreign") {
            return Err(format!(
                "layer {digest} is a foreign layer ({}), which is not supported",
                shorten(media_type)
            ));
        }
        if !LAYERS.contains(&media_type) {
            return Err(format!("the type {:?} of layer {digest} is not supported", shorten(media_type)));
        }
    }
    Ok(Document::Manifest(Manifest { config, layers }))
}

fn shorten(text: &str) -> String {
    text.chars().take(100).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn layer(media_type: &str) -> String {
        let config = format!(r#"{{"mediaType":"x","digest":"{DIGEST}","size":2}}"#);
        let layer = format!(r#"{{"mediaType":"{media_type}","digest":"{DIGEST}","size":3}}"#);
        format!(r#"{{"schemaVersion":2,"config":{config},"layers":[{layer}]}}"#)
    }

    #[test]
    fn both_forms_are_read() {
        for content_type in [OCI_MANIFEST, DOCKER_MANIFEST, "application/json", ""] {
            let parsed = parse(layer(LAYERS[1]).as_bytes(), content_type);
            assert!(matches!(parsed, Ok(Document::Manifest(manifest)) if manifest.layers[0].size == 3));
        }
        let index = format!(
            r#"{{"schemaVersion":2,"manifests":[{{"mediaType":"{OCI_MANIFEST}","digest":"{DIGEST}","size":1,
            "platform":{{"os":"linux","architecture":"amd64"}}}}]}}"#
        );
        assert!(matches!(parse(index.as_bytes(), OCI_INDEX), Ok(Document::Index(list)) if list.len() == 1));
    }

    #[test]
    fn what_is_not_supported_is_named() {
        let both = format!(r#"{{"schemaVersion":2,"manifests":[],"layers":[],"mediaType":"{OCI_INDEX}"}}"#);
        for (body, content_type, word) in [
            (r#"{"schemaVersion":1,"fsLayers":[]}"#.to_owned(), "", "schema 1"),
            (layer("application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"), OCI_MANIFEST, "foreign"),
            (layer("application/vnd.in-toto+json"), OCI_MANIFEST, "in-toto"),
            (layer(LAYERS[0]), "application/vnd.cncf.helm", "helm"),
            (both, OCI_INDEX, "at once"),
            ("{}".into(), OCI_MANIFEST, "lacks"),
            ("<html>".into(), OCI_MANIFEST, "no sense"),
            (layer(LAYERS[0]).replace(DIGEST, "sha256:../../x"), OCI_MANIFEST, "digest"),
            (layer(LAYERS[0]).replace("\"size\":3", "\"size\":-3"), OCI_MANIFEST, "no sense"),
        ] {
            let reason = parse(body.as_bytes(), content_type).unwrap_err();
            assert!(reason.contains(word), "{body}: {reason}");
        }
    }
}
