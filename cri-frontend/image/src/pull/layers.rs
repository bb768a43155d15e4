//! An image's layers: several at once, each made once.
//!
//! Workers start in the layers' order, and wait for layers below only: so there is always one that can go on.

use std::{
    io::{self, BufReader, Read},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use bytes::{Buf, Bytes};
use tokio::{
    runtime::Handle,
    sync::{OwnedMutexGuard, OwnedSemaphorePermit, Semaphore, mpsc, watch},
    task::{JoinError, JoinSet},
};

use super::{Pull, Work, blocking, blocking_for_long, copying::Copying, manifest::Descriptor};
use crate::{
    ImageError,
    digest::Digest,
    layer::{
        LayerError, Outcome,
        convert::{Job, Made, convert},
        stack::{Below, Stack},
    },
    registry::{self, Registry, RegistryError},
    store::{KeptBlob, LayerFacts, LayerKey, Lease, StoredLayer, Workspace},
};

/// Chunks between the connection and the converter.
const QUEUE: usize = 8;

/// The layers up to one, once they are all there.
type Ready = watch::Receiver<Option<Arc<Vec<StoredLayer>>>>;

/// The lowest layer that is known to have another root directory than the default one. Most layers leave the root out, and
/// have it made by default at once, because those below are not there yet. Where one of them is known to be unusual, waiting for
/// them is cheaper than to find out in the end, and fetch the layer again.
#[derive(Debug)]
struct UnusualRoot(AtomicUsize);

impl UnusualRoot {
    fn is_below(&self, layer: usize) -> bool {
        self.0.load(Ordering::Relaxed) < layer
    }

    fn tell(&self, layer: usize) {
        self.0.fetch_min(layer, Ordering::Relaxed);
    }
}

/// One layer to be made.
struct Worker {
    work: Arc<Work>,
    registry: Arc<Registry>,
    image: String,
    layer: Descriptor,
    diff_id: Digest,
    chain_id: Digest,
    /// Counted from the lowest.
    index: usize,
    below: Ready,
    unusual_root: Arc<UnusualRoot>,
}

/// What lets one worker run, and others not: a place in the pull, and this layer.
type Turn = (OwnedSemaphorePermit, OwnedMutexGuard<()>);

/// Makes all layers, or finds them.
pub(super) async fn make(
    pull: &Pull,
    layers: &[Descriptor],
    diff_ids: &[Digest],
) -> Result<Vec<Lease>, ImageError> {
    let places = Arc::new(Semaphore::new(pull.work.config.parallel_layers));
    let unusual_root = Arc::new(UnusualRoot(AtomicUsize::new(usize::MAX)));
    let (_, mut below) = watch::channel(Some(Arc::default()));
    let mut team = Team::new(layers.len());
    let mut chain: Option<Digest> = None;
    for (index, (layer, diff_id)) in layers.iter().zip(diff_ids).enumerate() {
        let chain_id = diff_id.chained_on(chain.as_ref());
        chain = Some(chain_id.clone());
        let turn = async {
            let place = places.clone().acquire_owned().await;
            let place =
                place.map_err(|error| ImageError::Worker { task: "a layer", reason: error.to_string() })?;
            Ok((place, pull.work.layers.lock(diff_id.clone()).await))
        };
        let turn = team.unless_failed(turn).await?;
        let (done, ready) = watch::channel(None);
        let worker = Worker {
            work: pull.work.clone(),
            registry: pull.registry.clone(),
            image: pull.image.clone(),
            layer: layer.clone(),
            diff_id: diff_id.clone(),
            chain_id,
            index,
            below: std::mem::replace(&mut below, ready),
            unusual_root: unusual_root.clone(),
        };
        team.tasks.spawn(async move { (index, worker.run(turn, done).await) });
    }
    team.finish().await
}

/// The workers of one pull, stopped when dropped.
struct Team {
    tasks: JoinSet<(usize, Result<Lease, ImageError>)>,
    leases: Vec<Option<Lease>>,
}

impl Team {
    fn new(layers: usize) -> Self {
        Self { tasks: JoinSet::new(), leases: (0..layers).map(|_| None).collect() }
    }

    /// Waits for something, but not if a worker has failed.
    async fn unless_failed<T>(
        &mut self,
        wanted: impl Future<Output = Result<T, ImageError>>,
    ) -> Result<T, ImageError> {
        tokio::pin!(wanted);
        loop {
            tokio::select! {
                biased;
                Some(ended) = self.tasks.join_next() => self.note(ended).await?,
                result = &mut wanted => return result,
            }
        }
    }

    async fn finish(mut self) -> Result<Vec<Lease>, ImageError> {
        while let Some(ended) = self.tasks.join_next().await {
            self.note(ended).await?;
        }
        Ok(self.leases.into_iter().flatten().collect())
    }

    async fn note(
        &mut self,
        ended: Result<(usize, Result<Lease, ImageError>), JoinError>,
    ) -> Result<(), ImageError> {
        match ended {
            Ok((index, Ok(lease))) => {
                self.leases[index] = Some(lease);
                Ok(())
            }
            Ok((_, Err(error))) => Err(self.cause_of(error).await),
            Err(error) => Err(ImageError::Worker { task: "a layer", reason: error.to_string() }),
        }
    }

    /// "A layer below failed" is no answer: the failure below is.
    async fn cause_of(&mut self, mut error: ImageError) -> ImageError {
        while matches!(&error, ImageError::Layer { source: LayerError::Lower, .. }) {
            match self.tasks.join_next().await {
                Some(Ok((_, Err(other)))) => error = other,
                Some(_) => {}
                None => break,
            }
        }
        error
    }
}

impl Worker {
    async fn run(
        mut self,
        turn: Turn,
        done: watch::Sender<Option<Arc<Vec<StoredLayer>>>>,
    ) -> Result<Lease, ImageError> {
        let mut lease = match self.existing().await? {
            Some(lease) => {
                self.look_at_root(&lease).await?;
                lease
            }
            None => self.convert(false).await?,
        };
        drop(turn);
        let below = self.layers_below().await?;
        if !self.fits(&lease, below.clone()).await? {
            lease = self.convert(true).await?;
        }
        let mut layers = below.as_ref().clone();
        layers.push(lease.layer.clone());
        // Nobody listens above the topmost layer.
        done.send_replace(Some(Arc::new(layers)));
        Ok(lease)
    }

    /// A layer made for this chain, or one that lies above others elsewhere.
    async fn existing(&self) -> Result<Option<Lease>, ImageError> {
        let (store, chain) = (self.work.store.clone(), LayerKey::Chain(self.chain_id.clone()));
        let diff = LayerKey::Diff(self.diff_id.clone());
        blocking("the store", move || match store.lease(&chain)? {
            Some(lease) => Ok(Some(lease)),
            None => store.lease(&diff),
        })
        .await?
    }

    /// Tells the layers above of a layer that was there already.
    async fn look_at_root(&self, lease: &Lease) -> Result<(), ImageError> {
        if !lease.layer.facts.has_root {
            return Ok(());
        }
        let layer = [lease.layer.clone()];
        let default = blocking("a layer's root", move || open(&layer)?.has_default_root()).await?;
        if !default.map_err(|error| self.failed(error))? {
            self.unusual_root.tell(self.index);
        }
        Ok(())
    }

    /// Whether a layer is right above these: one that says nothing about the root directory has the default one.
    async fn fits(&self, lease: &Lease, below: Arc<Vec<StoredLayer>>) -> Result<bool, ImageError> {
        let LayerFacts { has_root, hides_all_below, .. } = lease.layer.facts;
        if has_root || hides_all_below || matches!(lease.layer.key, LayerKey::Chain(_)) {
            return Ok(true);
        }
        let default = blocking("a layer's root", move || open(&below)?.has_default_root()).await?;
        default.map_err(|error| self.failed(error))
    }

    async fn layers_below(&mut self) -> Result<Arc<Vec<StoredLayer>>, ImageError> {
        let ready = self.below.wait_for(Option::is_some).await;
        let layers = ready.ok().and_then(|layers| layers.clone());
        layers.ok_or_else(|| self.failed(LayerError::Lower))
    }

    /// Makes the layer, from the blob that is kept, if there is one and it is whole.
    async fn convert(&self, inherit_root: bool) -> Result<Lease, ImageError> {
        let (store, digest) = (self.work.store.clone(), self.layer.digest.clone());
        let kept = blocking("the store", move || store.disk().open_blob(&digest)).await??;
        if let Some(file) = kept {
            match self.converter(BufReader::new(file), false, inherit_root).await? {
                Err(error @ ImageError::Layer { source: LayerError::BlobDigest { .. }, .. }) => {
                    tracing::warn!(%error, "a kept blob is damaged and is fetched again");
                }
                made => return made,
            }
        }
        self.fetch(inherit_root).await
    }

    /// Downloads and converts side by side. The thread ends by itself when the download is given up.
    async fn fetch(&self, inherit_root: bool) -> Result<Lease, ImageError> {
        let (sender, receiver) = mpsc::channel(QUEUE);
        let download = async {
            let sender = sender;
            registry::download(&self.registry, &self.layer.digest, self.layer.size, &sender).await
        };
        let blob = BlobReader { blob: receiver, chunk: Bytes::new() };
        let keep = self.work.config.keep_compressed;
        let (downloaded, converted) = futures::join!(download, self.converter(blob, keep, inherit_root));
        match downloaded {
            // The converter's failure ended the download.
            Ok(()) | Err(RegistryError::Abandoned) => converted?,
            Err(source) => {
                let step = format!("layer {}", self.layer.digest);
                Err(ImageError::Registry { image: self.image.clone(), step, source })
            }
        }
    }

    async fn converter(
        &self,
        blob: impl Read + Send + 'static,
        keep: bool,
        inherit_root: bool,
    ) -> Result<Result<Lease, ImageError>, ImageError> {
        let (work, below) = (self.work.clone(), self.below.clone());
        let (index, unusual_root) = (self.index, self.unusual_root.clone());
        let (image, digest, diff_id) = (self.image.clone(), self.layer.digest.clone(), self.diff_id.clone());
        let chain_id = self.chain_id.clone();
        let runtime = Handle::current();
        blocking_for_long("a layer's conversion", move || {
            let workspace = work.store.disk().workspace()?;
            let job = Job {
                program: work.mkfs_erofs.clone(),
                directory: workspace.directory("mkfs")?,
                limits: work.limits,
                blob: digest.clone(),
                diff_id: diff_id.clone(),
                inherit_root,
            };
            let mut below = Waiting { ready: below, runtime, stack: None, index, unusual_root };
            let copy_to = if keep { Some(work.store.disk().workspace()?) } else { None };
            let (made, blob) = convert_and_keep(&job, blob, &mut below, copy_to)
                .map_err(|source| ImageError::Layer { image, digest, source })?;
            let Made { file, digest, outcome } = made;
            let key =
                if outcome.depends_on_lower { LayerKey::Chain(chain_id) } else { LayerKey::Diff(diff_id) };
            let Outcome { has_root, hides_all_below, .. } = outcome;
            let facts = LayerFacts { has_root, hides_all_below, digest };
            let mut lease = work.store.add_layer(&workspace, &file, &key, facts)?;
            lease.blob = blob;
            Ok(lease)
        })
        .await
    }

    fn failed(&self, source: LayerError) -> ImageError {
        ImageError::Layer { image: self.image.clone(), digest: self.layer.digest.clone(), source }
    }
}

/// Converts a blob, and keeps a copy of it where there is a place for one.
fn convert_and_keep(
    job: &Job,
    blob: impl Read,
    below: &mut dyn Below,
    copy_to: Option<Workspace>,
) -> Result<(Made, Option<KeptBlob>), LayerError> {
    let Some(workspace) = copy_to else { return Ok((convert(job, blob, below)?, None)) };
    let mut copy = Copying::new(blob, workspace)?;
    let made = convert(job, &mut copy, below)?;
    Ok((made, Some(copy.finish(job.blob.clone())?)))
}

fn open(layers: &[StoredLayer]) -> Result<Stack, LayerError> {
    Stack::open(layers.iter().map(|layer| (layer.file.as_path(), layer.facts.hides_all_below)))
}

/// The layers below, waited for on a converter's thread when they are first needed.
struct Waiting {
    ready: Ready,
    runtime: Handle,
    stack: Option<Stack>,
    index: usize,
    unusual_root: Arc<UnusualRoot>,
}

impl Below for Waiting {
    fn stack(&mut self) -> Result<&Stack, LayerError> {
        if self.stack.is_none() {
            let layers = self.runtime.block_on(self.ready.wait_for(Option::is_some));
            let layers = layers.ok().and_then(|layers| layers.clone()).ok_or(LayerError::Lower)?;
            self.stack = Some(open(&layers)?);
        }
        self.stack.as_ref().ok_or(LayerError::Lower)
    }

    fn has_unusual_root(&self) -> bool {
        self.unusual_root.is_below(self.index)
    }

    fn tell_unusual_root(&self) {
        self.unusual_root.tell(self.index);
    }
}

/// The chunks of a download as a stream; it ends when the download does, well or not.
struct BlobReader {
    blob: mpsc::Receiver<Bytes>,
    chunk: Bytes,
}

impl Read for BlobReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.chunk.is_empty() {
            match self.blob.blocking_recv() {
                Some(chunk) => self.chunk = chunk,
                None => return Ok(0),
            }
        }
        let length = buffer.len().min(self.chunk.len());
        self.chunk.copy_to_slice(&mut buffer[..length]);
        Ok(length)
    }
}
