//! Stored layers.

use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::{disk::failed, index};
use crate::{ImageError, digest::Digest};

/// Under what a layer is stored: what its content depends on.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LayerKey {
    /// Its own tar stream only: shared among all images that have it.
    Diff(Digest),
    /// The layers below, too.
    Chain(Digest),
}

impl fmt::Display for LayerKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Diff(digest) => write!(formatter, "diff-{}", digest.hex()),
            Self::Chain(digest) => write!(formatter, "chain-{}", digest.hex()),
        }
    }
}

/// What must be known of a layer besides its files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LayerFacts {
    /// It says what the root directory is like.
    pub has_root: bool,
    /// It hides all layers below.
    pub hides_all_below: bool,
    /// The EROFS file's digest when it was made.
    pub digest: Digest,
}

impl LayerFacts {
    pub(super) fn to_json(&self, path: &Path) -> Result<Vec<u8>, ImageError> {
        serde_json::to_vec(self).map_err(|error| failed("write", path)(error.into()))
    }
}

/// A layer in the store.
#[derive(Debug, Clone)]
pub(crate) struct StoredLayer {
    /// Its name.
    pub key: LayerKey,
    /// The EROFS file.
    pub file: PathBuf,
    /// What else is known.
    pub facts: LayerFacts,
}

impl StoredLayer {
    pub(super) fn load(key: &LayerKey, directory: &Path) -> Result<Option<Self>, ImageError> {
        let path = directory.join(index::FACTS_FILE);
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed("read", &path)(error)),
        };
        let facts = serde_json::from_slice(&text).map_err(|error| failed("read", &path)(error.into()))?;
        Ok(Some(Self { key: key.clone(), file: directory.join(index::LAYER_FILE), facts }))
    }
}
