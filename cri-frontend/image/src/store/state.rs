//! What is in the store, in memory; each change is on disk before it is seen.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use oci_spec::image::ImageConfiguration;

use super::{
    disk::{Disk, Workspace, failed, remove},
    index::{self, Record},
    layer::LayerKey,
    names::{Names, lookup},
};
use crate::{Image, ImageError, Usage, digest::Digest, reference::Reference};

/// The store.
#[derive(Debug)]
pub(crate) struct Store {
    disk: Disk,
    pinned: BTreeSet<String>,
    /// One change of the records at a time, from before it is written until it is seen.
    change: Mutex<()>,
    /// Layers are looked for, counted on anew and taken out under it: none goes that somebody has just found. Held over file
    /// work, so only where one may block.
    layers: Mutex<()>,
    /// Memory only, held for moments: threads that may not block ask it, too. Taken last.
    state: Mutex<State>,
}

#[derive(Debug, Default)]
pub(super) struct State {
    records: Names,
    configs: HashMap<Digest, Arc<ImageConfiguration>>,
    /// Images in use, by who uses them.
    holds: HashMap<String, Digest>,
    /// Images that are being freed: nobody can hold them any more.
    leaving: BTreeSet<Digest>,
    /// Layers that pulls count on, by how many.
    pub(super) leases: HashMap<LayerKey, usize>,
}

/// A complete image to be made known.
#[derive(Debug)]
pub(crate) struct NewImage {
    /// Its configuration's digest.
    pub id: Digest,
    /// The configuration's bytes.
    pub config: Vec<u8>,
    /// The same, read.
    pub parsed: ImageConfiguration,
    /// Manifests and indexes that led to it.
    pub manifests: Vec<(Digest, Vec<u8>)>,
    /// Under which it was pulled.
    pub reference: Reference,
    /// What that name stands for.
    pub target: Digest,
    /// Its layers, the lowest first.
    pub layers: Vec<LayerKey>,
    /// The same as the registry names them.
    pub blobs: Vec<Digest>,
    /// Those that were fetched and are to be kept.
    pub kept: Vec<KeptBlob>,
    /// Bytes as the registry counts them.
    pub size: u64,
}

/// A layer as the registry sent it, whole and synced.
#[derive(Debug)]
pub(crate) struct KeptBlob {
    /// Its digest.
    pub digest: Digest,
    /// Where it is until it is moved into the store.
    pub workspace: Workspace,
}

impl KeptBlob {
    /// Its file in a workspace.
    pub(crate) fn file(workspace: &Workspace) -> PathBuf {
        workspace.file("blob")
    }
}

impl Store {
    /// Opens a store; blocks.
    pub(crate) fn open(root: &Path, pinned: &[String]) -> Result<Self, ImageError> {
        let disk = Disk::open(root)?;
        let pinned = pinned
            .iter()
            .map(|name| Reference::parse(name).map_or_else(|_| name.clone(), |full| full.to_string()));
        let mut state = State::default();
        let loaded = index::load(&disk)?;
        let keep_unknown = loaded.is_none();
        for (id, record) in loaded.unwrap_or_default() {
            match complete(&disk, &id, &record) {
                Ok(config) => {
                    state.configs.insert(id.clone(), Arc::new(config));
                    state.records.insert(id, record);
                }
                Err(error) => tracing::error!(%id, %error, "an image is damaged and must be pulled again"),
            }
        }
        if !keep_unknown {
            sweep(&disk, &state.records)?;
        }
        Ok(Self {
            disk,
            pinned: pinned.collect(),
            change: Mutex::default(),
            layers: Mutex::default(),
            state: Mutex::new(state),
        })
    }

    /// The files.
    pub(crate) fn disk(&self) -> &Disk {
        &self.disk
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn layers(&self) -> MutexGuard<'_, ()> {
        self.layers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self) -> MutexGuard<'_, ()> {
        self.change.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn image(&self, state: &State, id: &Digest) -> Option<Image> {
        let record = state.records.get(id)?;
        Some(Image {
            id: id.to_string(),
            repo_tags: record.tags.iter().cloned().collect(),
            repo_digests: record.digests.iter().cloned().collect(),
            size: record.size,
            config: state.configs.get(id)?.clone(),
            layers: record.layers.iter().map(|key| self.disk.layer_file(key)).collect(),
            pinned: self.is_pinned(id, record),
        })
    }

    fn is_pinned(&self, id: &Digest, record: &Record) -> bool {
        self.pinned.contains(&id.to_string())
            || record.tags.iter().chain(&record.digests).any(|name| self.pinned.contains(name))
    }

    /// An image by any of its names.
    pub(crate) fn find(&self, name: &str) -> Result<Option<Image>, ImageError> {
        let state = self.state();
        let found =
            lookup(&state.records, name)?.filter(|id| state.records.get(id).is_some_and(Record::has_name));
        Ok(found.and_then(|id| self.image(&state, &id)))
    }

    /// All images with a name.
    pub(crate) fn list(&self) -> Vec<Image> {
        let state = self.state();
        let named = state.records.iter().filter(|(_, record)| record.has_name());
        named.filter_map(|(id, _)| self.image(&state, id)).collect()
    }

    /// Makes an image known under a name, which another one may lose; blocks.
    pub(crate) fn add(&self, new: NewImage) -> Result<Image, ImageError> {
        // From here on: a removal that has begun would take the files of an image that it does not know yet.
        let _change = self.change();
        for (digest, body) in &new.manifests {
            self.disk.add_file(&self.disk.manifest(digest), body)?;
        }
        self.disk.add_file(&self.disk.config(&new.id), &new.config)?;
        for blob in &new.kept {
            self.disk.move_in(&KeptBlob::file(&blob.workspace), &self.disk.blob(&blob.digest))?;
        }
        let mut records = self.state().records.clone();
        let name = new.reference.to_string();
        let by_digest = new.reference.with_digest(&new.target);
        for record in records.values_mut() {
            record.tags.remove(&name);
            record.digests.remove(&by_digest);
        }
        let record = records.entry(new.id.clone()).or_default();
        if name != by_digest {
            record.tags.insert(name);
        }
        record.digests.insert(by_digest);
        record.manifests.extend(new.manifests.into_iter().map(|(digest, _)| digest));
        // Another image may have kept what this one did not have to fetch.
        record.blobs.extend(new.blobs.into_iter().filter(|digest| self.disk.blob(digest).exists()));
        (record.layers, record.size) = (new.layers, new.size);
        index::save(&self.disk, &records)?;
        let mut state = self.state();
        state.records = records;
        state.configs.insert(new.id.clone(), Arc::new(new.parsed));
        let image = self.image(&state, &new.id);
        image.ok_or_else(|| ImageError::NotFound { name: new.id.to_string() })
    }

    /// Takes all names off an image, as containerd's CRI does whatever name was given, and frees what nothing else
    /// needs; blocks. An image in use is freed when its last holder lets go.
    pub(crate) fn remove(&self, name: &str) -> Result<(), ImageError> {
        let change = self.change();
        let mut records = self.state().records.clone();
        let Some(id) = lookup(&records, name)? else { return Ok(()) };
        if let Some(record) = records.get_mut(&id) {
            if self.is_pinned(&id, record) {
                return Err(ImageError::Pinned { name: name.to_owned() });
            }
            record.tags.clear();
            record.digests.clear();
        }
        self.free(&change, records, |candidate| *candidate == id)
    }

    /// Notes that somebody uses an image.
    pub(crate) fn hold(&self, id: &str, holder: &str) -> Result<(), ImageError> {
        let mut state = self.state();
        let missing = || ImageError::NotFound { name: id.to_owned() };
        let found = lookup(&state.records, id)?.filter(|id| !state.leaving.contains(id));
        let id = found.ok_or_else(missing)?;
        state.holds.insert(holder.to_owned(), id);
        Ok(())
    }

    /// The image that a holder uses.
    pub(crate) fn held(&self, holder: &str) -> Option<Image> {
        let state = self.state();
        let id = state.holds.get(holder)?;
        self.image(&state, id)
    }

    /// Notes that a holder is gone. Says which image, if nobody can name it any more.
    pub(crate) fn release(&self, holder: &str) -> Option<Digest> {
        let mut state = self.state();
        let id = state.holds.remove(holder)?;
        let nameless = state.records.get(&id).is_some_and(|record| !record.has_name());
        nameless.then_some(id)
    }

    /// Frees an image, or all, without name and holder; blocks.
    pub(crate) fn collect(&self, only: Option<&Digest>) -> Result<(), ImageError> {
        let change = self.change();
        let records = self.state().records.clone();
        self.free(&change, records, |id| only.is_none_or(|only| only == id))
    }

    /// Makes a changed set of images the truth, without those candidates that nobody can name or uses.
    fn free(
        &self,
        _change: &MutexGuard<'_, ()>,
        mut records: Names,
        is_candidate: impl Fn(&Digest) -> bool,
    ) -> Result<(), ImageError> {
        let mut state = self.state();
        let in_use = |id: &Digest| state.holds.values().any(|held| held == id);
        records.retain(|id, record| record.has_name() || !is_candidate(id) || in_use(id));
        if records == state.records {
            return Ok(());
        }
        state.leaving = state.records.keys().filter(|id| !records.contains_key(*id)).cloned().collect();
        drop(state);
        let saved = index::save(&self.disk, &records);
        state = self.state();
        state.leaving.clear();
        saved?;
        let mut gone = std::mem::replace(&mut state.records, records);
        gone.retain(|id, _| !state.records.contains_key(id));
        state.configs.retain(|id, _| !gone.contains_key(id));
        let mut kept = Record::default();
        for record in state.records.values() {
            kept.manifests.extend(record.manifests.iter().cloned());
            kept.blobs.extend(record.blobs.iter().cloned());
        }
        drop(state);
        for (id, record) in &gone {
            record.layers.iter().try_for_each(|key| self.discard(key))?;
            remove(&self.disk.config(id))?;
            for digest in record.manifests.difference(&kept.manifests) {
                remove(&self.disk.manifest(digest))?;
            }
            for digest in record.blobs.difference(&kept.blobs) {
                remove(&self.disk.blob(digest))?;
            }
        }
        Ok(())
    }

    /// What the store takes of its file system; blocks.
    pub(crate) fn usage(&self) -> Result<Usage, ImageError> {
        self.disk.usage()
    }
}

impl State {
    pub(super) fn needs(&self, key: &LayerKey) -> bool {
        self.leases.contains_key(key) || self.records.values().any(|record| record.layers.contains(key))
    }
}

/// Reads an image's configuration, and looks for its layers.
fn complete(disk: &Disk, id: &Digest, record: &Record) -> Result<ImageConfiguration, ImageError> {
    let path = disk.config(id);
    let text = std::fs::read(&path).map_err(failed("read", &path))?;
    for key in &record.layers {
        let path = disk.layer_file(key);
        std::fs::metadata(&path).map_err(failed("find", &path))?;
    }
    serde_json::from_slice(&text).map_err(|error| failed("read", &path)(error.into()))
}

/// Removes what no image needs: an earlier process ended before it could.
fn sweep(disk: &Disk, records: &BTreeMap<Digest, Record>) -> Result<(), ImageError> {
    let layers: BTreeSet<String> =
        records.values().flat_map(|record| &record.layers).map(ToString::to_string).collect();
    let manifests: BTreeSet<&str> =
        records.values().flat_map(|record| &record.manifests).map(Digest::hex).collect();
    let blobs: BTreeSet<&str> = records.values().flat_map(|record| &record.blobs).map(Digest::hex).collect();
    let configs: BTreeSet<&str> = records.keys().map(Digest::hex).collect();
    for (directory, needed) in [
        ("layers", layers.iter().map(String::as_str).collect()),
        ("manifests", manifests),
        ("configs", configs),
        ("blobs", blobs),
    ] {
        for name in disk.names(directory)?.iter().filter(|name| !needed.contains(name.as_str())) {
            remove(&disk.root().join(directory).join(name))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image() -> NewImage {
        let config = br#"{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}"#;
        let manifest = Digest::of(b"manifest");
        NewImage {
            id: Digest::of(config),
            config: config.to_vec(),
            parsed: serde_json::from_slice(config).unwrap(),
            manifests: vec![(manifest.clone(), b"manifest".to_vec())],
            reference: Reference::parse("x").unwrap(),
            target: manifest,
            layers: Vec::new(),
            blobs: Vec::new(),
            kept: Vec::new(),
            size: 0,
        }
    }

    #[test]
    fn an_image_that_is_held_while_it_is_removed_stays_or_cannot_be_held() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path(), &[]).unwrap();
        for _ in 0..40 {
            let id = store.add(image()).unwrap().id;
            let held = std::thread::scope(|scope| {
                scope.spawn(|| store.remove("x").unwrap());
                let hold = || std::iter::repeat_with(|| store.hold(&id, "holder").is_ok()).take(1000).last();
                scope.spawn(hold).join().unwrap().unwrap()
            });
            assert_eq!(held, store.held("holder").is_some());
            assert_eq!(held, store.disk.config(&Digest::of(&image().config)).exists());
            store.release("holder");
            store.collect(None).unwrap();
        }
    }

    #[test]
    fn an_image_whose_removal_cannot_be_written_can_be_held() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path(), &[]).unwrap();
        let id = store.add(image()).unwrap().id;
        let index = index::path(store.disk.root());
        std::fs::remove_file(&index).unwrap();
        std::fs::create_dir(&index).unwrap();
        store.remove("x").unwrap_err();
        store.hold(&id, "holder").unwrap();
    }

    #[test]
    fn an_image_that_is_added_while_it_is_removed_has_its_files_or_is_gone() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path(), &[]).unwrap();
        for _ in 0..40 {
            store.add(image()).unwrap();
            std::thread::scope(|scope| {
                scope.spawn(|| store.remove("x").unwrap());
                scope.spawn(|| store.add(image()).unwrap());
            });
            let found = store.find("x").unwrap().is_some();
            let files = [store.disk.config(&image().id), store.disk.manifest(&image().target)];
            assert_eq!(files.map(|file| file.exists()), [found; 2]);
        }
    }
}
