//! What the store knows of an image.

use std::{path::PathBuf, sync::Arc};

use oci_spec::image::ImageConfiguration;

/// An image that is complete in the store.
#[derive(Debug, Clone)]
pub struct Image {
    /// The digest of its configuration: `sha256:…`.
    pub id: String,
    /// Every `name:tag` it is known by.
    pub repo_tags: Vec<String>,
    /// Every `name@digest` it is known by.
    pub repo_digests: Vec<String>,
    /// Bytes of its manifest, configuration and layers as the registry holds them.
    pub size: u64,
    /// Its configuration.
    pub config: Arc<ImageConfiguration>,
    /// The layers' EROFS files, lowest first.
    pub layers: Vec<PathBuf>,
    /// Never removed, by configuration.
    pub pinned: bool,
}

/// What a tree takes of its file system.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Allocated bytes: a sparse file has fewer than its length.
    pub bytes: u64,
    /// Files and directories.
    pub inodes: u64,
}
