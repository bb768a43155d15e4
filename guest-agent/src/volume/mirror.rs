//! Copies of volumes that the host swaps, in memory: made as kubelet's AtomicWriter makes the original, so that who
//! watches one sees what it would see of the other.

use std::{
    collections::BTreeSet,
    ffi::OsString,
    fs::{self, DirBuilder, File, Metadata, OpenOptions, Permissions},
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, chown, fchown, symlink},
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use a3s_box_proto::ports::{GUEST_MIRRORS, SHARE_VOLUMES};
use nix::mount::{MntFlags, MsFlags, umount2};

use crate::{
    error::{Failed, Step},
    init::mounts::mount_one,
    paths,
};

/// The link that a swap renames, and its name until then.
const DATA: &str = "..data";
const NEW_DATA: &str = "..data_tmp";
/// What directories and links take of a small file system's pages.
const SLACK: u64 = 1 << 20;

/// What the host says of a volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// Its name in the share, and that of the copy.
    pub name: String,
    /// The directory that its `..data` leads to.
    pub data: String,
    /// The most that is copied.
    pub limits: Limits,
}

/// What is left to copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Of files' contents.
    pub bytes: u64,
    /// Files and directories.
    pub entries: u64,
}

/// The copies that there are.
#[derive(Debug, Default)]
pub struct Mirrors(Mutex<BTreeSet<String>>);

impl Mirrors {
    /// Makes a copy, or lets it follow the host's.
    pub fn replay(&self, wanted: &Wanted) -> Result<(), Failed> {
        let mut made = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let step = || format!("copy volume {}, {}", wanted.name, wanted.data);
        let source = Path::new(paths::SHARE).join(SHARE_VOLUMES).join(&wanted.name);
        let target = Path::new(GUEST_MIRRORS).join(&wanted.name);
        let itself = fs::metadata(&source).step(step)?;
        if !made.contains(&wanted.name) {
            mount(&target, wanted.limits)?;
            made.insert(wanted.name.clone());
        }
        own_like(&target, &itself).step(step)?;
        let copied = write(&source, &target, &wanted.data, wanted.limits).step(step);
        // The host removes what was swapped away, and a name that is still known here would keep it.
        super::drop_dentries()?;
        copied
    }

    /// Forgets a copy that no container uses any more.
    pub fn forget(&self, name: &str) -> Result<(), Failed> {
        let mut made = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !made.contains(name) {
            return Ok(());
        }
        let target = Path::new(GUEST_MIRRORS).join(name);
        let step = || format!("unmount {}", target.display());
        umount2(&target, MntFlags::UMOUNT_NOFOLLOW).step(step)?;
        made.remove(name);
        fs::remove_dir(&target).step(|| format!("remove {}", target.display()))
    }
}

/// Room for the old content and the new.
fn mount(target: &Path, limits: Limits) -> Result<(), Failed> {
    fs::create_dir_all(target).step(|| format!("create {}", target.display()))?;
    let bytes = limits.bytes.saturating_mul(2).saturating_add(SLACK);
    let inodes = limits.entries.saturating_mul(3).saturating_add(16);
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mount_one("mirror", target, "tmpfs", flags, &format!("size={bytes},nr_inodes={inodes}"))
}

/// In AtomicWriter's order: the new directory, the link to it under another name, its rename, the names that users
/// see, and the removal of what is there no more.
fn write(source: &Path, target: &Path, data: &str, mut limits: Limits) -> io::Result<()> {
    let link = target.join(DATA);
    let before = fs::read_link(&link).ok();
    if before.as_deref() == Some(Path::new(data)) {
        return Ok(());
    }
    let (from, into) = (source.join(data), target.join(data));
    // What a copy that failed has left.
    absent_is_fine(fs::remove_dir_all(&into))?;
    if let Err(error) = copy_directory(&from, &into, &mut limits) {
        absent_is_fine(fs::remove_dir_all(&into))?;
        return Err(error);
    }
    absent_is_fine(fs::remove_file(target.join(NEW_DATA)))?;
    symlink(data, target.join(NEW_DATA))?;
    fs::rename(target.join(NEW_DATA), &link)?;
    let names: BTreeSet<OsString> =
        fs::read_dir(&into)?.map(|entry| Ok(entry?.file_name())).collect::<io::Result<_>>()?;
    for name in &names {
        match symlink(Path::new(DATA).join(name), target.join(name)) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            made => made?,
        }
    }
    for entry in fs::read_dir(target)? {
        let name = entry?.file_name();
        if !name.as_encoded_bytes().starts_with(b"..") && !names.contains(&name) {
            fs::remove_file(target.join(name))?;
        }
    }
    match before {
        Some(before) => absent_is_fine(fs::remove_dir_all(target.join(before))),
        None => Ok(()),
    }
}

fn copy_directory(from: &Path, into: &Path, limits: &mut Limits) -> io::Result<()> {
    DirBuilder::new().mode(0o700).create(into)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (from, into): (PathBuf, PathBuf) = (entry.path(), into.join(entry.file_name()));
        limits.entries = limits.entries.checked_sub(1).ok_or_else(|| too_much("files"))?;
        let kind = entry.file_type()?;
        if kind.is_dir() {
            copy_directory(&from, &into, limits)?;
        } else if kind.is_file() {
            copy_file(&from, &into, limits)?;
        } else {
            return Err(io::Error::other(format!("{} is neither file nor directory", from.display())));
        }
    }
    own_like(into, &fs::metadata(from)?)
}

fn copy_file(from: &Path, into: &Path, limits: &mut Limits) -> io::Result<()> {
    let mut source = File::open(from)?;
    let mut target = OpenOptions::new().write(true).create_new(true).mode(0o600).open(into)?;
    let copied = io::copy(&mut (&mut source).take(limits.bytes.saturating_add(1)), &mut target)?;
    limits.bytes = limits.bytes.checked_sub(copied).ok_or_else(|| too_much("bytes"))?;
    target.flush()?;
    let metadata = source.metadata()?;
    fchown(&target, Some(metadata.uid()), Some(metadata.gid()))?;
    target.set_permissions(Permissions::from_mode(metadata.mode() & 0o7777))
}

fn own_like(path: &Path, original: &Metadata) -> io::Result<()> {
    chown(path, Some(original.uid()), Some(original.gid()))?;
    fs::set_permissions(path, Permissions::from_mode(original.mode() & 0o7777))
}

fn too_much(what: &str) -> io::Error {
    io::Error::other(format!("it has more {what} than are copied"))
}

fn absent_is_fine(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { bytes: 100, entries: 10 };

    fn names(directory: &Path) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(directory)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn a_copy_follows_its_original() {
        let (source, target) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (source, target) = (source.path(), target.path());
        fs::create_dir_all(source.join("..1/dir")).unwrap();
        fs::write(source.join("..1/dir/key"), "one").unwrap();
        fs::write(source.join("..1/old"), "").unwrap();
        fs::set_permissions(source.join("..1/old"), Permissions::from_mode(0o440)).unwrap();
        write(source, target, "..1", LIMITS).unwrap();
        assert_eq!(names(target), ["..1", "..data", "dir", "old"]);
        assert_eq!(fs::read_to_string(target.join("dir/key")).unwrap(), "one");
        assert_eq!(fs::metadata(target.join("old")).unwrap().mode() & 0o777, 0o440);

        fs::create_dir_all(source.join("..2/dir")).unwrap();
        fs::write(source.join("..2/dir/key"), "two").unwrap();
        write(source, target, "..2", LIMITS).unwrap();
        write(source, target, "..2", LIMITS).unwrap();
        assert_eq!(names(target), ["..2", "..data", "dir"]);
        assert_eq!(fs::read_to_string(target.join("dir/key")).unwrap(), "two");
    }

    #[test]
    fn what_is_too_large_changes_nothing() {
        let (source, target) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::create_dir(source.path().join("..1")).unwrap();
        fs::write(source.path().join("..1/key"), "0123456789").unwrap();
        for limits in [Limits { bytes: 9, entries: 10 }, Limits { bytes: 100, entries: 0 }] {
            assert!(write(source.path(), target.path(), "..1", limits).is_err());
            assert_eq!(names(target.path()), Vec::<String>::new());
        }
    }
}
