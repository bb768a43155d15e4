//! `index.json`.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::{
    disk::{Disk, failed},
    layer::LayerKey,
};
use crate::{ImageError, digest::Digest};

pub(super) const LAYER_FILE: &str = "layer.erofs";
pub(super) const FACTS_FILE: &str = "layer.json";
const INDEX_FILE: &str = "index.json";
const VERSION: u32 = 1;

/// An image, as written.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    /// Every `name:tag`.
    pub tags: BTreeSet<String>,
    /// Every `name@digest`.
    pub digests: BTreeSet<String>,
    /// All manifests and indexes by which it was found.
    pub manifests: BTreeSet<Digest>,
    /// Those of its layers that are kept as the registry sent them.
    #[serde(default)]
    pub blobs: BTreeSet<Digest>,
    /// Its layers, the lowest first, down to the last one that hides all below it.
    pub layers: Vec<LayerKey>,
    /// Bytes as the registry counts them.
    pub size: u64,
}

impl Record {
    /// Whether anybody can ask for it. One without a name waits for its last holder.
    pub(super) fn has_name(&self) -> bool {
        !self.tags.is_empty() || !self.digests.is_empty()
    }
}

#[derive(Serialize, Deserialize)]
struct File<'a> {
    version: u32,
    images: std::borrow::Cow<'a, BTreeMap<Digest, Record>>,
}

/// Why there are no records.
pub(super) enum NoIndex {
    /// The file cannot be read.
    Failed(io::Error),
    /// It makes no sense.
    Senseless(String),
}

/// Where the records stand.
pub(super) fn path(root: &Path) -> PathBuf {
    root.join(INDEX_FILE)
}

/// All records.
pub(super) fn read(root: &Path) -> Result<BTreeMap<Digest, Record>, NoIndex> {
    let text = match fs::read(path(root)) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
        Err(error) => return Err(NoIndex::Failed(error)),
    };
    match serde_json::from_slice::<File<'_>>(&text) {
        Ok(file) if file.version == VERSION => Ok(file.images.into_owned()),
        Ok(file) => Err(NoIndex::Senseless(format!("version {} is not {VERSION}", file.version))),
        Err(error) => Err(NoIndex::Senseless(error.to_string())),
    }
}

/// All records. Nothing if the file could not be read and was set aside.
pub(super) fn load(disk: &Disk) -> Result<Option<BTreeMap<Digest, Record>>, ImageError> {
    let path = path(disk.root());
    match read(disk.root()) {
        Ok(records) => Ok(Some(records)),
        Err(NoIndex::Failed(error)) => Err(failed("read", &path)(error)),
        Err(NoIndex::Senseless(reason)) => set_aside(&path, &reason),
    }
}

/// Images can be pulled again, but layers may be in use by pods: nothing else is thrown away.
fn set_aside(path: &Path, reason: &str) -> Result<Option<BTreeMap<Digest, Record>>, ImageError> {
    let aside = path.with_extension("json.unreadable");
    fs::rename(path, &aside).map_err(failed("set aside", path))?;
    tracing::error!(?aside, reason, "the index of images cannot be read; images must be pulled again");
    Ok(None)
}

/// Replaces the file.
pub(super) fn save(disk: &Disk, images: &BTreeMap<Digest, Record>) -> Result<(), ImageError> {
    let path = path(disk.root());
    let file = File { version: VERSION, images: std::borrow::Cow::Borrowed(images) };
    let text = serde_json::to_vec_pretty(&file).map_err(|error| failed("write", &path)(error.into()))?;
    disk.add_file(&path, &text)
}
