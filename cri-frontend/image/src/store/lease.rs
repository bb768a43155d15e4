//! Layers that pulls count on, before an image has them.

use std::{path::Path, sync::Arc};

use super::{
    background::in_background,
    disk::Workspace,
    layer::{LayerFacts, LayerKey, StoredLayer},
    state::{KeptBlob, Store},
};
use crate::ImageError;

/// A layer that a pull counts on. If no image has it in the end, it goes with the lease.
#[derive(Debug)]
pub(crate) struct Lease {
    /// The layer.
    pub layer: StoredLayer,
    /// As the registry sent it, if that is to be kept.
    pub blob: Option<KeptBlob>,
    store: Arc<Store>,
}

impl Store {
    /// A layer that is there, kept until the lease is dropped; blocks.
    pub(crate) fn lease(self: &Arc<Self>, key: &LayerKey) -> Result<Option<Lease>, ImageError> {
        let _layers = self.layers();
        let Some(layer) = self.disk().find_layer(key)? else { return Ok(None) };
        *self.state().leases.entry(key.clone()).or_default() += 1;
        Ok(Some(Lease { layer, blob: None, store: self.clone() }))
    }

    /// Puts a finished layer into the store, kept until the lease is dropped; blocks.
    pub(crate) fn add_layer(
        self: &Arc<Self>,
        workspace: &Workspace,
        file: &Path,
        key: &LayerKey,
        facts: LayerFacts,
    ) -> Result<Lease, ImageError> {
        // Counted before it is there, so that nothing takes it for garbage.
        let layers = self.layers();
        *self.state().leases.entry(key.clone()).or_default() += 1;
        drop(layers);
        match self.disk().add_layer(workspace, file, key, facts) {
            Ok(layer) => Ok(Lease { layer, blob: None, store: self.clone() }),
            Err(error) => {
                self.end_lease(key);
                self.discard(key)?;
                Err(error)
            }
        }
    }

    /// Removes a layer, if nothing needs it; blocks.
    pub(super) fn discard(&self, key: &LayerKey) -> Result<(), ImageError> {
        let layers = self.layers();
        if self.state().needs(key) {
            return Ok(());
        }
        let removed = self.disk().take_out(key)?;
        // Deleting a large file takes its time.
        drop(layers);
        drop(removed);
        Ok(())
    }

    /// Whether the layer is still needed.
    fn end_lease(&self, key: &LayerKey) -> bool {
        let mut state = self.state();
        if let Some(count) = state.leases.get_mut(key) {
            *count -= 1;
            if *count == 0 {
                state.leases.remove(key);
            }
        }
        state.needs(key)
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let (is_needed, blob) = (self.store.end_lease(&self.layer.key), self.blob.take());
        if is_needed && blob.is_none() {
            return;
        }
        let (store, key) = (self.store.clone(), self.layer.key.clone());
        in_background(move || {
            drop(blob);
            if let Err(error) = store.discard(&key) {
                tracing::warn!(%error, "a layer that no image needs stays until the next start");
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use std::{
        fs::{self, OpenOptions},
        io::Write,
        os::unix::fs::OpenOptionsExt,
        sync::mpsc,
        thread,
        time::Duration,
    };

    use nix::{libc::O_NONBLOCK, sys::stat::Mode, unistd::mkfifo};

    use super::*;
    use crate::{digest::Digest, store::index};

    fn add(store: &Arc<Store>, content: &str) -> (LayerKey, Lease) {
        let key = LayerKey::Diff(Digest::of(content.as_bytes()));
        let workspace = store.disk().workspace().unwrap();
        let file = workspace.file("made");
        fs::write(&file, content).unwrap();
        let facts = LayerFacts { has_root: true, hides_all_below: false, digest: Digest::of(b"") };
        let lease = store.add_layer(&workspace, &file, &key, facts).unwrap();
        (key, lease)
    }

    #[test]
    fn a_disk_that_hangs_keeps_no_thread_that_may_not_block() {
        let directory = tempfile::tempdir().unwrap();
        let store = Arc::new(Store::open(directory.path(), &[]).unwrap());
        let (slow, _kept) = add(&store, "slow");
        let (unneeded, lease) = add(&store, "unneeded");
        // Who reads it waits for this test.
        let facts = store.disk().layer_file(&slow).with_file_name(index::FACTS_FILE);
        let content = fs::read(&facts).unwrap();
        fs::remove_file(&facts).unwrap();
        mkfifo(&facts, Mode::S_IRWXU).unwrap();

        let pull = thread::spawn({
            let store = store.clone();
            move || store.lease(&slow).unwrap().is_some()
        });
        let mut pipe = loop {
            match OpenOptions::new().write(true).custom_flags(O_NONBLOCK).open(&facts) {
                Ok(pipe) => break pipe,
                Err(_) => thread::yield_now(),
            }
        };
        let (done, answered) = mpsc::channel();
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        let runtime = runtime.worker_threads(1).max_blocking_threads(1).build().unwrap();
        let asked = store.clone();
        runtime.spawn(async move {
            assert!(asked.list().is_empty() && asked.find("x").unwrap().is_none());
            assert!(asked.hold("x", "holder").is_err() && asked.held("holder").is_none());
            assert_eq!(asked.release("holder"), None);
            drop(lease);
            done.send(()).unwrap();
        });
        answered.recv_timeout(Duration::from_secs(20)).unwrap();
        assert!(store.disk().layer_file(&unneeded).exists());

        pipe.write_all(&content).unwrap();
        drop(pipe);
        assert!(pull.join().unwrap());
        // Behind what was left to the background, on the same thread.
        runtime.block_on(runtime.spawn_blocking(|| ())).unwrap();
        assert!(!store.disk().layer_file(&unneeded).exists());
    }
}
