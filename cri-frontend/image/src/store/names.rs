//! From what a caller writes to an image.

use std::collections::BTreeMap;

use super::index::Record;
use crate::{ImageError, digest::Digest, reference::Reference};

/// All images, by id.
pub(super) type Names = BTreeMap<Digest, Record>;

/// Finds an image by tag, digest, id, or the beginning of an id; in containerd's order.
pub(super) fn lookup(images: &Names, name: &str) -> Result<Option<Digest>, ImageError> {
    if let Ok(id) = name.parse::<Digest>() {
        return Ok(images.contains_key(&id).then_some(id));
    }
    if let Ok(reference) = Reference::parse(name) {
        let full = reference.to_string();
        let named = |record: &Record| record.tags.contains(&full) || record.digests.contains(&full);
        if let Some((id, _)) = images.iter().find(|(_, record)| named(record)) {
            return Ok(Some(id.clone()));
        }
    }
    let prefix = name.strip_prefix("sha256:").unwrap_or(name);
    if prefix.is_empty() {
        return Ok(None);
    }
    let mut begins = images.keys().filter(|id| id.hex().starts_with(prefix));
    match (begins.next(), begins.next()) {
        (Some(_), Some(_)) => Err(ImageError::Ambiguous { prefix: name.to_owned() }),
        (found, _) => Ok(found.cloned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(tags: &[&str]) -> Record {
        Record {
            tags: tags.iter().map(|tag| (*tag).to_owned()).collect(),
            digests: [format!("docker.io/library/x@{}", Digest::of(b"manifest"))].into(),
            manifests: [].into(),
            blobs: [].into(),
            layers: Vec::new(),
            size: 0,
        }
    }

    #[test]
    fn an_image_is_found_by_all_its_names() {
        let (one, other) = (Digest::of(b"1"), Digest::of(b"2"));
        let mut images = Names::from([(one.clone(), record(&["docker.io/library/x:latest", "r.io/x:1"]))]);
        images.insert(other.clone(), Record { digests: [].into(), ..record(&[]) });
        let by_digest = format!("x@{}", Digest::of(b"manifest"));
        let by_both = format!("docker.io/x:any@{}", Digest::of(b"manifest"));
        for name in [
            "x",
            "docker.io/x:latest",
            "r.io/x:1",
            &by_digest,
            &by_both,
            &one.to_string(),
            one.hex(),
            &one.hex()[..7],
        ] {
            assert_eq!(lookup(&images, name).unwrap(), Some(one.clone()), "{name}");
        }
        for name in ["", "sha256:", "y", "r.io/x", "x:1", "!!", &Digest::of(b"3").to_string()] {
            assert_eq!(lookup(&images, name).unwrap(), None, "{name}");
        }
    }

    #[test]
    fn an_ambiguous_beginning_is_an_error() {
        let ids: Vec<Digest> = (0..17_u8).map(|number| Digest::of(&[number])).collect();
        let images: Names = ids.iter().map(|id| (id.clone(), record(&[]))).collect();
        let twice =
            ids.iter().find(|id| ids.iter().filter(|other| other.hex()[..1] == id.hex()[..1]).count() > 1);
        assert!(lookup(&images, &twice.unwrap().hex()[..1]).is_err());
    }
}
