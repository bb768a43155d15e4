//! From a name to the manifest for this machine.

use bytes::Bytes;

use super::{
    Pull,
    manifest::{self, Descriptor, Document, Manifest},
    platform,
};
use crate::{
    ImageError,
    digest::Digest,
    reference::{Reference, Version},
    registry::Fetched,
};

/// Indexes in indexes.
const MAX_DEPTH: usize = 4;

/// What a name stands for.
pub(super) struct Resolved {
    /// What the name points to: an index or a manifest.
    pub target: Digest,
    /// All documents on the way, with their bytes.
    pub documents: Vec<(Digest, Bytes)>,
    /// The image's manifest.
    pub manifest: Manifest,
}

impl Resolved {
    /// Bytes of the image as the registry counts them: manifest, configuration, layers.
    pub(super) fn size(&self) -> u64 {
        let manifest = self.documents.last().map_or(0, |(_, body)| body.len() as u64);
        let Manifest { config, layers } = &self.manifest;
        layers.iter().map(|layer| layer.size).fold(manifest.saturating_add(config.size), u64::saturating_add)
    }
}

/// Fetches documents until one is a manifest.
pub(super) async fn resolve(pull: &Pull, reference: &Reference) -> Result<Resolved, ImageError> {
    let limit = pull.work.manifest_limit();
    let first = match &reference.version {
        Version::Tag(tag) => pull.registry.manifest_by_tag(tag, limit).await,
        Version::Digest(digest) => pull.registry.manifest(digest, limit).await,
    };
    let mut fetched = first.map_err(|error| pull.registry_error("manifest", error))?;
    let target = fetched.digest.clone();
    let mut documents = Vec::new();
    for _ in 0..MAX_DEPTH {
        let Fetched { body, digest, content_type } = fetched;
        let document = manifest::parse(&body, &content_type).map_err(|reason| pull.unusable(reason))?;
        documents.push((digest, body));
        let list = match document {
            Document::Manifest(manifest) => return Ok(Resolved { target, documents, manifest }),
            Document::Index(list) => list,
        };
        let chosen = choose(&list, std::env::consts::ARCH).ok_or_else(|| {
            pull.unusable(format!("it has no image for linux on {}", std::env::consts::ARCH))
        })?;
        let next = pull.registry.manifest(&chosen.digest, limit).await;
        fetched = next.map_err(|error| pull.registry_error(format!("manifest {}", chosen.digest), error))?;
    }
    Err(pull.unusable("its indexes are nested too deeply".into()))
}

/// The best for this machine; else an index or image that does not say what it is for.
pub(super) fn choose<'a>(list: &'a [Descriptor], machine: &str) -> Option<&'a Descriptor> {
    let ranked =
        list.iter().filter_map(|entry| Some((platform::rank(entry.platform.as_ref()?, machine)?, entry)));
    let unsaid = || {
        let open: Vec<_> = list.iter().filter(|entry| entry.platform.is_none()).collect();
        open.iter().find(|entry| manifest::is_index(&entry.media_type)).or(open.first()).copied()
    };
    ranked.min_by_key(|(rank, _)| *rank).map(|(_, entry)| entry).or_else(unsaid)
}
