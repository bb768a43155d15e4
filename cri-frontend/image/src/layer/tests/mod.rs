//! Layers through the real converter, read back from the file it made.

mod entries;
mod lower_layers;
mod refusals;

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs,
    io::{self, Cursor, Read, Write},
    path::{Path, PathBuf},
};

use tar::{EntryType, Header};

use super::{
    LayerError, Limits,
    convert::{Job, Made, convert},
    normalise::normalise,
    output::Outcome,
    stack::{Below, Stack},
};
use crate::digest::Digest;

/// The converter that the packaging builds before the tests run.
pub(crate) fn mkfs_erofs() -> PathBuf {
    if let Some(path) = std::env::var_os("A3S_BOX_MKFS_EROFS") {
        return path.into();
    }
    let home = std::env::var_os("HOME").unwrap();
    let cache = Path::new(&home).join(".cache/a3s-box/erofs-utils");
    let versions =
        fs::read_dir(&cache).unwrap_or_else(|error| panic!("{cache:?}: {error}: build the helpers first"));
    let mut found: Vec<_> = versions.map(|entry| entry.unwrap().path().join("mkfs.erofs")).collect();
    found.retain(|path| path.exists());
    found.sort_by_key(|path| fs::metadata(path).unwrap().modified().unwrap());
    found.pop().unwrap_or_else(|| panic!("no mkfs.erofs in {cache:?}: build the helpers first"))
}

/// The permissions of a layer file's root directory.
pub(crate) fn root_mode(file: &Path) -> u32 {
    let stack = Stack::open([(file, false)].into_iter()).unwrap();
    stack.root().unwrap().unwrap().inode.mode & 0o7777
}

/// A tar stream in the making.
#[derive(Default)]
struct Tar(Vec<u8>);

impl Tar {
    fn entry(mut self, name: &str, kind: EntryType, change: impl FnOnce(&mut Header), data: &[u8]) -> Self {
        let mut header = Header::new_gnu();
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_entry_type(kind);
        header.set_mode(if kind.is_dir() { 0o755 } else { 0o644 });
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1000);
        header.set_size(data.len() as u64);
        change(&mut header);
        header.set_cksum();
        self.0.extend_from_slice(header.as_bytes());
        self.0.extend_from_slice(data);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    fn file(self, name: &str, data: &str) -> Self {
        self.entry(name, EntryType::Regular, |_| {}, data.as_bytes())
    }

    fn dir(self, name: &str, mode: u32, uid: u64) -> Self {
        let change = |header: &mut Header| {
            header.set_mode(mode);
            header.set_uid(uid);
        };
        self.entry(name, EntryType::Directory, change, b"")
    }

    fn link(self, name: &str, kind: EntryType, target: &str) -> Self {
        let change = |header: &mut Header| {
            header.as_old_mut().linkname[..target.len()].copy_from_slice(target.as_bytes());
        };
        self.entry(name, kind, change, b"")
    }

    fn symlink(self, name: &str, target: &str) -> Self {
        self.link(name, EntryType::Symlink, target)
    }

    fn hardlink(self, name: &str, target: &str) -> Self {
        self.link(name, EntryType::Link, target)
    }

    fn pax(self, records: &[(&str, &[u8])]) -> Self {
        let mut data = Vec::new();
        for (key, value) in records {
            let rest = key.len() + value.len() + 3;
            let length = (rest + 1..).find(|length| rest + length.to_string().len() == *length).unwrap();
            data.extend_from_slice(format!("{length} {key}=").as_bytes());
            data.extend_from_slice(value);
            data.push(b'\n');
        }
        self.entry("pax", EntryType::XHeader, |_| {}, &data)
    }

    fn raw(mut self, block: &[u8]) -> Self {
        self.0.extend_from_slice(block);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    fn done(mut self) -> Vec<u8> {
        self.0.extend_from_slice(&[0; 1024]);
        self.0
    }
}

/// Layers made one above the other.
struct Image {
    directory: tempfile::TempDir,
    layers: Vec<(PathBuf, bool)>,
    limits: Limits,
    inherit_root: bool,
}

struct Ready(Stack);

impl Below for Ready {
    fn stack(&mut self) -> Result<&Stack, LayerError> {
        Ok(&self.0)
    }

    fn has_unusual_root(&self) -> bool {
        !self.0.has_default_root().unwrap()
    }

    fn tell_unusual_root(&self) {}
}

pub(crate) fn limits() -> Limits {
    Limits {
        compressed: 1 << 24,
        unpacked: 1 << 24,
        entries: 1000,
        path_bytes: 4095,
        xattr_bytes: 65_536,
        convert_seconds: 60,
        keep_free: 0,
    }
}

impl Image {
    fn new() -> Self {
        Self {
            directory: tempfile::tempdir().unwrap(),
            layers: Vec::new(),
            limits: limits(),
            inherit_root: false,
        }
    }

    fn stack(&self) -> Stack {
        Stack::open(self.layers.iter().map(|(path, hides)| (path.as_path(), *hides))).unwrap()
    }

    fn try_add(&mut self, blob: &[u8], diff_id: Digest) -> Result<Outcome, LayerError> {
        let directory = self.directory.path().join(self.layers.len().to_string());
        let _ = fs::remove_dir_all(&directory);
        fs::create_dir(&directory).unwrap();
        let job = Job {
            program: mkfs_erofs(),
            directory,
            limits: self.limits,
            blob: Digest::of(blob),
            diff_id,
            inherit_root: self.inherit_root,
        };
        let Made { file, outcome, .. } = convert(&job, Cursor::new(blob), &mut Ready(self.stack()))?;
        self.layers.push((file, outcome.hides_all_below));
        Ok(outcome)
    }

    fn add(&mut self, tar: Tar) -> Outcome {
        let tar = tar.done();
        self.try_add(&tar, Digest::of(&tar)).unwrap()
    }

    fn refused(&mut self, tar: Tar) -> String {
        let tar = tar.done();
        self.try_add(&tar, Digest::of(&tar)).unwrap_err().to_string()
    }

    /// The merged path's type, mode, owner and content.
    fn show(&self, path: &str) -> String {
        let components: Vec<&[u8]> = path.split('/').map(str::as_bytes).collect();
        let Some(found) = self.stack().find(&components).unwrap() else { return "nothing".into() };
        let attributes = found.attributes().unwrap();
        let mut text = format!("{:o} {}:{}", found.inode.mode, attributes.uid, attributes.gid);
        if found.inode.is_symlink() {
            write!(text, " -> {}", String::from_utf8(found.target().unwrap()).unwrap()).unwrap();
        } else if found.inode.is_file() {
            let mut content = String::new();
            found.reader().read_to_string(&mut content).unwrap();
            write!(text, " {content:?}").unwrap();
        }
        text
    }

    fn xattrs(&self, path: &str) -> BTreeMap<String, Vec<u8>> {
        let components: Vec<&[u8]> = path.split('/').map(str::as_bytes).collect();
        let attributes = self.stack().find(&components).unwrap().unwrap().attributes().unwrap();
        attributes.xattrs.into_iter().map(|(name, value)| (String::from_utf8(name).unwrap(), value)).collect()
    }
}
