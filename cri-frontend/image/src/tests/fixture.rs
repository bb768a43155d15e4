//! Images to serve, and a store to pull them into.

use std::{
    collections::{BTreeSet, HashMap},
    fs,
    path::Path,
    sync::Arc,
};

use a3s_box_proto::config::Images;
use flate2::{Compression, write::GzEncoder};

use super::server::{Reply, Request};
use crate::{Digest, ImageStore, layer};

pub(super) const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(super) const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

/// What a well-behaved registry has: paths below `/v2/` and what is there.
#[derive(Clone, Default)]
pub(super) struct Content {
    pub by_path: HashMap<String, (String, Vec<u8>)>,
}

/// A tar stream with one file, gzipped, and its diff id.
pub(super) fn layer_of(name: &str, data: &[u8]) -> (Vec<u8>, Digest) {
    layer_with_root(None, name, data)
}

/// The same, with an entry for the root directory of such a mode.
pub(super) fn layer_with_root(mode: Option<u32>, name: &str, data: &[u8]) -> (Vec<u8>, Digest) {
    let mut builder = tar::Builder::new(Vec::new());
    if let Some(mode) = mode {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Directory);
        header.set_size(0);
        header.set_mode(mode);
        builder.append_data(&mut header, "./", &[][..]).unwrap();
    }
    let mut header = tar::Header::new_gnu();
    header.set_size(data.len() as u64);
    header.set_mode(0o644);
    builder.append_data(&mut header, name, data).unwrap();
    let tar = builder.into_inner().unwrap();
    (gzip(&tar), Digest::of(&tar))
}

pub(super) fn gzip(data: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    std::io::Write::write_all(&mut encoder, data).unwrap();
    encoder.finish().unwrap()
}

impl Content {
    fn put(&mut self, path: String, kind: &str, body: &[u8]) {
        self.by_path.insert(path, (kind.to_owned(), body.to_owned()));
    }

    pub(super) fn blob(&mut self, repository: &str, body: &[u8]) -> Digest {
        let digest = Digest::of(body);
        self.put(format!("{repository}/blobs/{digest}"), "application/octet-stream", body);
        digest
    }

    pub(super) fn manifest(&mut self, repository: &str, tag: &str, kind: &str, body: &str) -> Digest {
        let digest = Digest::of(body.as_bytes());
        for name in [tag, &digest.to_string()] {
            self.put(format!("{repository}/manifests/{name}"), kind, body.as_bytes());
        }
        digest
    }

    /// An image of such layers; its manifest's digest.
    pub(super) fn image(&mut self, repository: &str, tag: &str, layers: &[(Vec<u8>, Digest)]) -> Digest {
        let diff_ids: Vec<String> = layers.iter().map(|(_, diff_id)| format!("\"{diff_id}\"")).collect();
        let config = format!(
            r#"{{"architecture":"amd64","os":"linux","config":{{"Cmd":["{tag}"]}},"rootfs":{{"type":"layers","diff_ids":[{}]}}}}"#,
            diff_ids.join(",")
        );
        let descriptors: Vec<String> = layers
            .iter()
            .map(|(blob, _)| {
                let digest = self.blob(repository, blob);
                format!(r#"{{"mediaType":"{LAYER}","digest":"{digest}","size":{}}}"#, blob.len())
            })
            .collect();
        let config_digest = self.blob(repository, config.as_bytes());
        let manifest = format!(
            r#"{{"schemaVersion":2,"mediaType":"{MANIFEST}","config":{{"mediaType":"x","digest":"{config_digest}","size":{}}},"layers":[{}]}}"#,
            config.len(),
            descriptors.join(",")
        );
        self.manifest(repository, tag, MANIFEST, &manifest)
    }

    /// The honest answer, ranges included.
    pub(super) fn reply(&self, request: &Request) -> Reply {
        let path = request.target.trim_start_matches("/v2/").split('?').next().unwrap_or_default();
        let Some((kind, body)) = self.by_path.get(path) else {
            return Reply::new(404, r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"not here"}]}"#)
                .with("content-type", "application/json");
        };
        let start = request
            .header("range")
            .and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-')?.parse::<usize>().ok());
        match start {
            Some(start) => Reply::new(206, &body[start..])
                .with("content-range", format!("bytes {start}-{}/{}", body.len() - 1, body.len())),
            None => Reply::new(200, body.clone()).with("content-type", kind.clone()),
        }
    }

    pub(super) fn serve(self) -> impl Fn(&Request) -> Reply + Send + Sync + 'static {
        let content = Arc::new(self);
        move |request| content.reply(request)
    }
}

/// A store in a directory of its own.
pub(super) struct Home {
    pub directory: tempfile::TempDir,
    pub config: Images,
}

impl Home {
    pub(super) fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let config = Images {
            certs_dir: directory.path().join("certs.d"),
            progress_timeout_s: 60,
            keep_free_mb: 0,
            ..Images::default()
        };
        Self { directory, config }
    }

    pub(super) fn root(&self) -> std::path::PathBuf {
        self.directory.path().join("images")
    }

    pub(super) async fn open(&self) -> ImageStore {
        ImageStore::open(self.root(), &self.config, layer::tests::mkfs_erofs()).await.unwrap()
    }

    /// All files in the store but its lock and index, as `directory/name`.
    pub(super) fn files(&self) -> BTreeSet<String> {
        let mut files = BTreeSet::new();
        collect(&self.root(), "", &mut files);
        files.retain(|name| name != "lock" && name != "index.json");
        files
    }

    /// Waits until nothing of any image is left: a worker that was given up, and deletion, take their time.
    pub(super) async fn empties(&self) {
        let patience = std::time::Duration::from_secs(30);
        let empty = tokio::time::timeout(patience, async {
            while !self.files().is_empty() {
                tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            }
        });
        assert!(empty.await.is_ok(), "something was left behind: {:?}", self.files());
    }
}

fn collect(path: &Path, prefix: &str, files: &mut BTreeSet<String>) {
    // What vanishes meanwhile is no file any more.
    let Ok(entries) = fs::read_dir(path) else { return };
    for entry in entries.flatten() {
        let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
        if entry.path().is_dir() {
            collect(&entry.path(), &format!("{name}/"), files);
        } else {
            files.insert(name);
        }
    }
}
