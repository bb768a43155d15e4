//! The store's directories, and how things come into them whole or not at all.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

use nix::fcntl::Flock;

use super::{
    index,
    layer::{LayerFacts, LayerKey, StoredLayer},
    lock,
};
use crate::{ImageError, digest::Digest};

const DIRECTORIES: [&str; 5] = ["blobs", "manifests", "configs", "layers", "tmp"];

/// The store's root, locked.
#[derive(Debug)]
pub(crate) struct Disk {
    root: PathBuf,
    next: AtomicU64,
    _lock: Flock<File>,
}

/// Names step and path of a failure.
pub(super) fn failed(step: &'static str, path: &Path) -> impl Fn(io::Error) -> ImageError + use<> {
    let path = path.to_owned();
    move |source| ImageError::Store { step, path: path.clone(), source }
}

/// Makes a directory's entries outlive a crash.
fn sync_directory(path: &Path) -> Result<(), ImageError> {
    File::open(path).and_then(|directory| directory.sync_all()).map_err(failed("sync", path))
}

impl Disk {
    /// Opens or makes a store, and throws away what an earlier process left half-made.
    pub(super) fn open(root: &Path) -> Result<Self, ImageError> {
        make_private(root)?;
        let lock = lock::take(root)?;
        for name in DIRECTORIES {
            make_private(&root.join(name))?;
        }
        let disk = Self { root: root.to_owned(), next: AtomicU64::new(0), _lock: lock };
        for path in entries(&root.join("tmp"))? {
            remove(&path)?;
        }
        Ok(disk)
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    pub(super) fn manifest(&self, digest: &Digest) -> PathBuf {
        self.root.join("manifests").join(digest.hex())
    }

    pub(super) fn config(&self, digest: &Digest) -> PathBuf {
        self.root.join("configs").join(digest.hex())
    }

    pub(super) fn blob(&self, digest: &Digest) -> PathBuf {
        self.root.join("blobs").join(digest.hex())
    }

    /// A layer as the registry sent it, if it is kept.
    pub(crate) fn open_blob(&self, digest: &Digest) -> Result<Option<File>, ImageError> {
        let path = self.blob(digest);
        match File::open(&path) {
            Ok(file) => Ok(Some(file)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(failed("open", &path)(error)),
        }
    }

    fn layer(&self, key: &LayerKey) -> PathBuf {
        self.root.join("layers").join(key.to_string())
    }

    /// A layer that is there.
    pub(crate) fn find_layer(&self, key: &LayerKey) -> Result<Option<StoredLayer>, ImageError> {
        StoredLayer::load(key, &self.layer(key))
    }

    /// Where a layer's file is or would be.
    pub(crate) fn layer_file(&self, key: &LayerKey) -> PathBuf {
        self.layer(key).join(index::LAYER_FILE)
    }

    /// A new directory for work in progress.
    pub(crate) fn workspace(&self) -> Result<Workspace, ImageError> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let path = self.root.join("tmp").join(number.to_string());
        DirBuilder::new().mode(0o700).create(&path).map_err(failed("make the directory", &path))?;
        Ok(Workspace { path })
    }

    /// Puts a finished EROFS file, which is synced, into the store.
    pub(crate) fn add_layer(
        &self,
        workspace: &Workspace,
        file: &Path,
        key: &LayerKey,
        facts: LayerFacts,
    ) -> Result<StoredLayer, ImageError> {
        let made = workspace.path.join("layer");
        DirBuilder::new().mode(0o700).create(&made).map_err(failed("make the directory", &made))?;
        fs::rename(file, made.join(index::LAYER_FILE)).map_err(failed("move", file))?;
        let facts_path = made.join(index::FACTS_FILE);
        write_synced(&facts_path, &facts.to_json(&facts_path)?)?;
        sync_directory(&made)?;
        let place = self.layer(key);
        let renamed = fs::rename(&made, &place);
        // Somebody else made the same one: content-addressed means that either will do.
        if let Err(error) = &renamed
            && matches!(error.kind(), io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::AlreadyExists)
            && let Some(layer) = self.find_layer(key)?
        {
            return Ok(layer);
        }
        renamed.map_err(failed("rename to", &place))?;
        sync_directory(&self.root.join("layers"))?;
        Ok(StoredLayer { key: key.clone(), file: place.join(index::LAYER_FILE), facts })
    }

    /// Puts a small file into the store.
    pub(super) fn add_file(&self, place: &Path, content: &[u8]) -> Result<(), ImageError> {
        let workspace = self.workspace()?;
        let made = workspace.path.join("file");
        write_synced(&made, content)?;
        self.move_in(&made, place)
    }

    /// Puts a finished file, which is synced, into the store.
    pub(super) fn move_in(&self, file: &Path, place: &Path) -> Result<(), ImageError> {
        fs::rename(file, place).map_err(failed("rename to", place))?;
        sync_directory(place.parent().unwrap_or(&self.root))
    }

    /// Takes a layer out of the store: gone under its name at once, and for good with the answer.
    pub(super) fn take_out(&self, key: &LayerKey) -> Result<Workspace, ImageError> {
        let workspace = self.workspace()?;
        let place = self.layer(key);
        match fs::rename(&place, workspace.path.join("removed")) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed("remove", &place)(error)),
            _ => Ok(workspace),
        }
    }

    /// The names in one of the store's directories.
    pub(super) fn names(&self, directory: &str) -> Result<Vec<String>, ImageError> {
        let paths = entries(&self.root.join(directory))?;
        Ok(paths.iter().filter_map(|path| path.file_name()?.to_str().map(Into::into)).collect())
    }
}

/// A directory in `tmp/`, removed with all in it when dropped.
#[derive(Debug)]
pub(crate) struct Workspace {
    path: PathBuf,
}

impl Workspace {
    /// A file in it.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// A new directory in it.
    pub(crate) fn directory(&self, name: &str) -> Result<PathBuf, ImageError> {
        let path = self.path.join(name);
        DirBuilder::new().mode(0o700).create(&path).map_err(failed("make the directory", &path))?;
        Ok(path)
    }
}

impl Drop for Workspace {
    fn drop(&mut self) {
        if let Err(error) = remove(&self.path) {
            tracing::warn!(%error, "work in progress was not removed; the next start does it");
        }
    }
}

fn make_private(path: &Path) -> Result<(), ImageError> {
    DirBuilder::new().mode(0o700).recursive(true).create(path).map_err(failed("make the directory", path))
}

fn write_synced(path: &Path, content: &[u8]) -> Result<(), ImageError> {
    let mut options = OpenOptions::new();
    let file = options.write(true).create_new(true).mode(0o600).open(path);
    file.and_then(|mut file| file.write_all(content).and_then(|()| file.sync_all()))
        .map_err(failed("write", path))
}

fn entries(directory: &Path) -> Result<Vec<PathBuf>, ImageError> {
    let list = fs::read_dir(directory).and_then(Iterator::collect::<io::Result<Vec<_>>>);
    Ok(list.map_err(failed("list", directory))?.iter().map(fs::DirEntry::path).collect())
}

/// Removes a file or a directory.
pub(super) fn remove(path: &Path) -> Result<(), ImageError> {
    let is_directory = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata.is_dir(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed("look at", path)(error)),
    };
    let removed = if is_directory { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    removed.map_err(failed("remove", path))
}
