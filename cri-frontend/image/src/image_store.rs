//! What the rest of the frontend sees.

use std::{path::PathBuf, sync::Arc};

use a3s_box_proto::config::Images;

use crate::{
    Credentials, Image, ImageError, Usage,
    layer::confine::{NO_LANDLOCK, kernel_confines_files},
    pull::{Puller, blocking},
    store::{Store, in_background},
};

/// The images of one node; cheap to clone.
#[derive(Clone)]
pub struct ImageStore {
    store: Arc<Store>,
    puller: Arc<Puller>,
}

impl ImageStore {
    /// Why this node can convert no layer, and what would help.
    pub fn obstacle() -> Option<&'static str> {
        (!kernel_confines_files()).then_some(NO_LANDLOCK)
    }

    /// Opens the store in a directory, which no other process may use, and removes what an earlier process left
    /// half-made. Images that were removed while in use stay until [`Self::collect`].
    ///
    /// # Errors
    /// The store is locked or its file system fails.
    pub async fn open(root: PathBuf, config: &Images, mkfs_erofs: PathBuf) -> Result<Self, ImageError> {
        // The TLS library wants its cryptography chosen once a process; whoever came first has chosen.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let pinned = config.pinned.clone();
        let store = Arc::new(blocking("the store's start", move || Store::open(&root, &pinned)).await??);
        let puller = Arc::new(Puller::new(store.clone(), config, mkfs_erofs));
        Ok(Self { store, puller })
    }

    /// Pulls an image. Calls for the same image with the same credentials share one pull, which goes on as long as
    /// one of them waits for it.
    ///
    /// # Errors
    /// The name is none, the registry does not give the image, or it cannot be used; nothing of it is left then.
    pub async fn pull(&self, reference: &str, credentials: Option<Credentials>) -> Result<Image, ImageError> {
        self.puller.pull(reference, credentials).await
    }

    /// An image by tag, digest, both, short name, id or beginning of an id.
    ///
    /// # Errors
    /// Several ids begin so.
    pub fn find(&self, name: &str) -> Result<Option<Image>, ImageError> {
        self.store.find(name)
    }

    /// All images that have a name.
    pub fn list(&self) -> Vec<Image> {
        self.store.list()
    }

    /// Removes an image with all its names, by any of them; an unknown one is no error. What a holder uses stays on
    /// disk until it is released.
    ///
    /// # Errors
    /// It is pinned, several ids begin so, or the file system fails.
    pub async fn remove(&self, name: &str) -> Result<(), ImageError> {
        let (store, name) = (self.store.clone(), name.to_owned());
        blocking("the removal of an image", move || store.remove(&name)).await?
    }

    /// Bytes and inodes that the store takes, as they are now. Walks the store's directory.
    ///
    /// # Errors
    /// The file system fails.
    pub async fn usage(&self) -> Result<Usage, ImageError> {
        let store = self.store.clone();
        blocking("the store's measurement", move || store.usage()).await?
    }

    /// Notes that a container uses an image. Held in memory: to be repeated after a start, before
    /// [`Self::collect`].
    ///
    /// # Errors
    /// There is no such image.
    pub fn hold(&self, id: &str, holder: &str) -> Result<(), ImageError> {
        self.store.hold(id, holder)
    }

    /// The image that a holder uses, also after its names were removed.
    pub fn held(&self, holder: &str) -> Option<Image> {
        self.store.held(holder)
    }

    /// Notes that a container is gone. If it was the last user of a removed image, that is freed in the background.
    pub fn release(&self, holder: &str) {
        let Some(id) = self.store.release(holder) else { return };
        let store = self.store.clone();
        in_background(move || {
            if let Err(error) = store.collect(Some(&id)) {
                tracing::warn!(%error, "a removed image could not be freed");
            }
        });
    }

    /// Frees images without a name that nobody holds. To be called once after a start, when all holders that still
    /// exist have held their images again.
    ///
    /// # Errors
    /// The file system fails.
    pub async fn collect(&self) -> Result<(), ImageError> {
        let store = self.store.clone();
        blocking("the collection of images", move || store.collect(None)).await?
    }
}

impl std::fmt::Debug for ImageStore {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_tuple("ImageStore").field(&self.store.disk().root()).finish()
    }
}
