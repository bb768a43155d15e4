//! Whether the store still holds what was put into it. Reads only, so that it may run beside the process that uses the
//! store; it says what is damaged, and what to do about that is a person's decision.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io,
    path::{Path, PathBuf},
};

use super::{
    index::{self, NoIndex, Record},
    layer::{LayerFacts, LayerKey},
};
use crate::{ImageError, digest::Digest, store::disk::failed};

/// What was looked at, and what is wrong.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verified {
    /// Images in the index.
    pub images: usize,
    /// Files whose digest was computed again.
    pub files: usize,
    /// Their bytes.
    pub bytes: u64,
    /// What is not what it was.
    pub damaged: Vec<Damage>,
}

/// A file of the store that is missing or not what it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it.
    pub reason: String,
    /// The images that need it, each by a name, or by its id if it has none.
    pub images: BTreeSet<String>,
}

/// Something that the index names.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Object {
    /// A file named by the digest of its content.
    Document(&'static str, Digest),
    /// A layer's file with the digest beside it.
    Layer(LayerKey),
}

/// Computes all digests of a store again; blocks.
///
/// # Errors
/// The index cannot be read. That it makes no sense is damage.
pub fn verify(root: &Path) -> Result<Verified, ImageError> {
    let records = match index::read(root) {
        Ok(records) => records,
        Err(NoIndex::Failed(error)) => return Err(failed("read", &index::path(root))(error)),
        Err(NoIndex::Senseless(reason)) => {
            let damage = Damage { path: index::path(root), reason, images: BTreeSet::new() };
            return Ok(Verified { damaged: vec![damage], ..Verified::default() });
        }
    };
    let mut verified = Verified { images: records.len(), ..Verified::default() };
    let mut suspects = Vec::new();
    for (object, images) in objects(&records) {
        let (path, checked) = check(root, &object);
        match checked {
            Ok(bytes) => {
                verified.files += 1;
                verified.bytes += bytes;
            }
            Err(reason) => suspects.push((object, Damage { path, reason, images })),
        }
    }
    // What was removed meanwhile is no damage.
    if let (false, Ok(records)) = (suspects.is_empty(), index::read(root)) {
        let now = objects(&records);
        suspects.retain(|(object, _)| now.contains_key(object));
    }
    verified.damaged = suspects.into_iter().map(|(_, damage)| damage).collect();
    Ok(verified)
}

/// Each object once, with the images that need it.
fn objects(records: &BTreeMap<Digest, Record>) -> BTreeMap<Object, BTreeSet<String>> {
    let mut objects: BTreeMap<Object, BTreeSet<String>> = BTreeMap::new();
    for (id, record) in records {
        let name = record.tags.iter().chain(&record.digests).next();
        let name = name.cloned().unwrap_or_else(|| id.to_string());
        let documents = record.manifests.iter().map(|digest| Object::Document("manifests", digest.clone()));
        let blobs = record.blobs.iter().map(|digest| Object::Document("blobs", digest.clone()));
        let layers = record.layers.iter().cloned().map(Object::Layer);
        let config = Object::Document("configs", id.clone());
        for object in documents.chain([config]).chain(blobs).chain(layers) {
            objects.entry(object).or_default().insert(name.clone());
        }
    }
    objects
}

/// Where an object is; how large, or what is wrong with it.
fn check(root: &Path, object: &Object) -> (PathBuf, Result<u64, String>) {
    match object {
        Object::Document(directory, digest) => {
            let path = root.join(directory).join(digest.hex());
            let checked = compare(&path, digest);
            (path, checked)
        }
        Object::Layer(key) => {
            let directory = root.join("layers").join(key.to_string());
            let facts = directory.join(index::FACTS_FILE);
            match digest_of_layer(&facts) {
                Err(error) => (facts, Err(error.to_string())),
                Ok(digest) => {
                    let path = directory.join(index::LAYER_FILE);
                    let checked = compare(&path, &digest);
                    (path, checked)
                }
            }
        }
    }
}

fn digest_of_layer(facts: &Path) -> io::Result<Digest> {
    let facts: LayerFacts = serde_json::from_slice(&std::fs::read(facts)?)?;
    Ok(facts.digest)
}

fn compare(path: &Path, expected: &Digest) -> Result<u64, String> {
    let computed = File::open(path).and_then(Digest::of_reader);
    match computed {
        Ok((actual, bytes)) if actual == *expected => Ok(bytes),
        Ok((actual, _)) => Err(format!("its digest is {actual}, and was {expected}")),
        Err(error) => Err(error.to_string()),
    }
}
