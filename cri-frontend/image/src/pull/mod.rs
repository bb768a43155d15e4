//! Pulls: from a name to a complete image in the store.

mod copying;
mod flights;
mod layers;
mod locks;
mod manifest;
mod places;
mod platform;
mod resolve;

use std::{path::PathBuf, sync::Arc, thread};

use a3s_box_proto::config::Images;
use bytes::Bytes;
use oci_spec::image::ImageConfiguration;
use tokio::{runtime::Handle, sync::oneshot};

use crate::{
    Credentials, Image, ImageError,
    digest::Digest,
    layer::{Limits, space::check_space},
    reference::Reference,
    registry::{Registry, RegistryError},
    store::{LayerKey, Lease, NewImage, Store},
};
use flights::Flights;
use locks::Locks;
use manifest::Manifest;
use places::Places;

/// Who pulls: pulls of one image with the same credentials are one.
pub(crate) struct Puller {
    work: Arc<Work>,
    flights: Flights<(Reference, Option<Credentials>), Image>,
}

/// What all pulls share.
pub(crate) struct Work {
    store: Arc<Store>,
    config: Images,
    limits: Limits,
    mkfs_erofs: PathBuf,
    /// Layers in the making, by diff id.
    layers: Locks<Digest>,
    conversions: Arc<Places>,
}

impl Work {
    fn manifest_limit(&self) -> u64 {
        self.config.max_manifest_kb.saturating_mul(1024)
    }
}

impl Puller {
    pub(crate) fn new(store: Arc<Store>, config: &Images, mkfs_erofs: PathBuf) -> Self {
        let limits = Limits::new(config);
        let work = Work {
            store,
            config: config.clone(),
            limits,
            mkfs_erofs,
            layers: Locks::default(),
            conversions: Arc::new(Places::new(config.parallel_conversions)),
        };
        Self { work: Arc::new(work), flights: Flights::default() }
    }

    /// Pulls an image, or joins a pull that is under way. It ends when its last caller goes away.
    pub(crate) async fn pull(
        &self,
        name: &str,
        credentials: Option<Credentials>,
    ) -> Result<Image, ImageError> {
        let reference = Reference::parse(name)?;
        let key = (reference.clone(), credentials.clone());
        let work = self.work.clone();
        self.flights.join(key, move || Pull::run(work, reference, credentials)).await
    }
}

/// One pull.
struct Pull {
    work: Arc<Work>,
    image: String,
    registry: Arc<Registry>,
}

impl Pull {
    async fn run(
        work: Arc<Work>,
        reference: Reference,
        credentials: Option<Credentials>,
    ) -> Result<Image, ImageError> {
        let image = reference.to_string();
        let started = std::time::Instant::now();
        let registry = connect(&work, &reference, credentials).await?;
        let pull = Self { work, image, registry: Arc::new(registry) };
        let result = pull.fetch(reference).await;
        if let Ok(image) = &result {
            tracing::info!(image = pull.image, id = image.id, took = ?started.elapsed(), "pulled");
        }
        result
    }

    async fn fetch(&self, reference: Reference) -> Result<Image, ImageError> {
        let resolved = resolve::resolve(self, &reference).await?;
        let manifest = &resolved.manifest;
        let id = manifest.config.digest.clone();
        let (config, parsed) = self.config(manifest).await?;
        let diff_ids = self.diff_ids(manifest, &parsed)?;
        self.check_sizes(manifest)?;
        let mut leases = layers::make(self, &manifest.layers, &diff_ids).await?;
        let new = NewImage {
            id,
            config: config.to_vec(),
            parsed,
            layers: visible(&leases),
            blobs: manifest.layers.iter().map(|layer| layer.digest.clone()).collect(),
            kept: leases.iter_mut().filter_map(|lease| lease.blob.take()).collect(),
            size: resolved.size(),
            target: resolved.target.clone(),
            manifests: resolved.documents.into_iter().map(|(digest, body)| (digest, body.to_vec())).collect(),
            reference,
        };
        let store = self.work.store.clone();
        let added = blocking("the store", move || store.add(new)).await?;
        // Only now: a lease that ends before the image is known takes its layer along.
        drop(leases);
        added
    }

    async fn config(&self, manifest: &Manifest) -> Result<(Bytes, ImageConfiguration), ImageError> {
        let digest = &manifest.config.digest;
        let fetched = self.registry.small_blob(digest, self.work.manifest_limit()).await;
        let body = fetched.map_err(|error| self.registry_error(format!("configuration {digest}"), error))?;
        let parsed = serde_json::from_slice(&body)
            .map_err(|error| self.unusable(format!("its configuration {digest} makes no sense: {error}")))?;
        Ok((body, parsed))
    }

    fn diff_ids(&self, manifest: &Manifest, config: &ImageConfiguration) -> Result<Vec<Digest>, ImageError> {
        let texts = config.rootfs().diff_ids();
        if texts.len() != manifest.layers.len() {
            let (layers, ids) = (manifest.layers.len(), texts.len());
            return Err(self.unusable(format!("its manifest has {layers} layers, its configuration {ids}")));
        }
        if texts.is_empty() {
            return Err(self.unusable("it has no layers".into()));
        }
        if !matches!(config.os().to_string().as_str(), "linux" | "") {
            return Err(self.unusable(format!("it is made for {}", config.os())));
        }
        let parsed: Result<_, _> = texts.iter().map(|text| text.parse()).collect();
        parsed.map_err(|error: crate::digest::BadDigest| self.unusable(format!("diff id: {error}")))
    }

    fn check_sizes(&self, manifest: &Manifest) -> Result<(), ImageError> {
        let limit = |what, limit, key| crate::layer::LayerError::Limit { what, limit, key };
        let too_much = |source| ImageError::Space { image: self.image.clone(), source };
        let most = self.work.config.max_layers;
        if manifest.layers.len() > most {
            return Err(too_much(limit("the image's layers", most as u64, "images.max_layers")));
        }
        let bytes = |layer: &manifest::Descriptor| layer.size;
        if manifest.layers.iter().any(|layer| layer.size > self.work.limits.compressed) {
            return Err(too_much(self.work.limits.compressed_error()));
        }
        let total = manifest.layers.iter().map(bytes).fold(0, u64::saturating_add);
        check_space(self.work.store.disk().root(), total, self.work.limits.keep_free).map_err(too_much)
    }

    fn registry_error(&self, step: impl Into<String>, source: RegistryError) -> ImageError {
        ImageError::Registry { image: self.image.clone(), step: step.into(), source }
    }

    fn unusable(&self, reason: String) -> ImageError {
        ImageError::Unusable { image: self.image.clone(), reason }
    }
}

/// The layers that matter: down to the last one that hides all below it, and each once. An overlay refuses a layer
/// that it has already, and what it would add lower down is hidden by the same things above.
fn visible(leases: &[Lease]) -> Vec<LayerKey> {
    let lowest = leases.iter().rposition(|lease| lease.layer.facts.hides_all_below).unwrap_or(0);
    let keys: Vec<&LayerKey> = leases[lowest..].iter().map(|lease| &lease.layer.key).collect();
    let last = keys.iter().enumerate().filter(|(index, key)| !keys[index + 1..].contains(key));
    last.map(|(_, key)| (*key).clone()).collect()
}

async fn connect(
    work: &Arc<Work>,
    reference: &Reference,
    credentials: Option<Credentials>,
) -> Result<Registry, ImageError> {
    let (work, reference) = (work.clone(), reference.clone());
    blocking("the registry's configuration", move || {
        let Reference { registry, repository, .. } = &reference;
        Registry::new(&work.config, registry, repository, credentials.as_ref()).map_err(|source| {
            ImageError::Registry { image: reference.to_string(), step: "configuration".into(), source }
        })
    })
    .await?
}

/// Runs what blocks where it may.
pub(crate) async fn blocking<T: Send + 'static>(
    task: &'static str,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, ImageError> {
    let ended = tokio::task::spawn_blocking(work).await;
    ended.map_err(|error| ImageError::Worker { task, reason: error.to_string() })
}

/// Runs what blocks for as long as a download takes. It gets a thread of its own: the pool's are few, and a handful of
/// slow pulls would leave none of them for all that is short.
async fn blocking_for_long<T: Send + 'static>(
    task: &'static str,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, ImageError> {
    let failed = |reason: String| ImageError::Worker { task, reason };
    let (answer, outcome) = oneshot::channel();
    let runtime = Handle::current();
    let run = move || {
        let _entered = runtime.enter();
        // Who does not wait any more does not want it.
        let _ = answer.send(work());
    };
    let thread = thread::Builder::new().name("layer".into()).spawn(run);
    thread.map_err(|error| failed(format!("no thread for it: {error}")))?;
    outcome.await.map_err(|_| failed("its thread died".into()))
}

/// For the fuzz targets.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) fn fuzz_manifest(body: &[u8], content_type: &str) {
    if let Ok(manifest::Document::Index(list)) = manifest::parse(body, content_type) {
        let _ = resolve::choose(&list, std::env::consts::ARCH);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_work_leaves_the_pool_to_the_short() {
        let runtime = tokio::runtime::Builder::new_current_thread().max_blocking_threads(1).build().unwrap();
        runtime.block_on(async {
            let (finish, finished) = oneshot::channel::<u32>();
            let long = tokio::spawn(blocking_for_long("a layer", || finished.blocking_recv()));
            assert_eq!(blocking("the store", || 7).await.unwrap(), 7);
            finish.send(8).unwrap();
            assert_eq!(long.await.unwrap().unwrap(), Ok(8));
        });
    }
}
