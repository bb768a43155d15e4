//! Directories of pods and small files in them, off the async threads.

use std::{
    fs,
    io::{self, Read},
    os::unix::{
        ffi::OsStrExt,
        fs::{DirBuilderExt, OpenOptionsExt},
    },
    path::{Path, PathBuf},
};

use rustix::fs::OFlags;
use serde::{Serialize, de::DeserializeOwned};

use super::{blocking::blocking, own_thread::on_own_thread};
use crate::error::Error;

/// Makes a directory and its parents; the new ones are for root alone.
pub async fn make_private_dir(path: PathBuf) -> Result<(), Error> {
    at("make", path, |path| fs::DirBuilder::new().recursive(true).mode(0o700).create(path)).await
}

/// Makes a directory that a caller names, and its parents, readable for all: log directories.
pub async fn make_public_dir(path: PathBuf) -> Result<(), Error> {
    on_own_thread("make", path, |path| fs::DirBuilder::new().recursive(true).mode(0o755).create(path)).await
}

/// Makes a directory that a caller names, readable for all, where nothing has its name.
pub async fn make_missing_dir(path: PathBuf) -> Result<(), Error> {
    on_own_thread("make", path, |path| {
        if path.try_exists()? {
            return Ok(());
        }
        fs::DirBuilder::new().recursive(true).mode(0o755).create(path)
    })
    .await
}

/// Looks at a file that a caller names; none where nothing has its name.
pub async fn look_at(path: PathBuf) -> Result<Option<fs::Metadata>, Error> {
    on_own_thread("look at", path, |path| match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        found => found.map(Some),
    })
    .await
}

/// Writes a file whole or not at all.
pub async fn write(path: PathBuf, content: Vec<u8>) -> Result<(), Error> {
    at("write", path, move |path| {
        let mut unfinished = path.as_os_str().to_owned();
        unfinished.push(".new");
        fs::write(&unfinished, content)?;
        fs::rename(&unfinished, path)
    })
    .await
}

/// Writes a value as JSON.
pub async fn write_json(path: PathBuf, value: &impl Serialize) -> Result<(), Error> {
    let content = serde_json::to_vec(value).map_err(|error| Error::File {
        action: "encode",
        path: path.clone(),
        source: error.into(),
    })?;
    write(path, content).await
}

/// Reads a value from JSON; none where there is no such file.
pub fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, Error> {
    let content = match fs::read(path) {
        Ok(content) => content,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::file("read", path)(error)),
    };
    serde_json::from_slice(&content).map(Some).map_err(|error| Error::file("decode", path)(error.into()))
}

/// As [`read_json`], off the async threads.
pub async fn read_json_async<T: DeserializeOwned + Send + 'static>(
    path: PathBuf,
) -> Result<Option<T>, Error> {
    blocking(move || read_json(&path)).await?
}

/// Reads a regular file of the node, of at most `most` bytes, that somebody else wrote.
pub async fn read_bounded(path: PathBuf, most: u64) -> Result<Vec<u8>, Error> {
    at("read", path, move |path| {
        // A pipe would wait for a writer.
        let file = fs::OpenOptions::new()
            .read(true)
            .custom_flags(OFlags::NONBLOCK.bits().cast_signed())
            .open(path)?;
        if !file.metadata()?.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file"));
        }
        let mut content = Vec::new();
        file.take(most + 1).read_to_end(&mut content)?;
        if content.len() as u64 > most {
            return Err(io::Error::new(
                io::ErrorKind::FileTooLarge,
                format!("it is larger than {most} bytes"),
            ));
        }
        Ok(content)
    })
    .await
}

/// Removes a directory with all it holds. Refused where something is mounted in it: a mount's content is not ours.
pub async fn remove_tree(path: PathBuf) -> Result<(), Error> {
    at("remove", path, |path| {
        if let Some(mount) = mount_below(path, &fs::read("/proc/self/mountinfo")?) {
            let reason = format!("{} is mounted in it", mount.display());
            return Err(io::Error::new(io::ErrorKind::ResourceBusy, reason));
        }
        match fs::remove_dir_all(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            result => result,
        }
    })
    .await
}

/// Work on a path of ours.
async fn at<T, F>(action: &'static str, path: PathBuf, work: F) -> Result<T, Error>
where
    F: FnOnce(&Path) -> io::Result<T> + Send + 'static,
    T: Send + 'static,
{
    let shown = path.clone();
    blocking(move || work(&path)).await?.map_err(Error::file(action, shown))
}

/// A mount point that is `tree` or lies in it.
fn mount_below(tree: &Path, mountinfo: &[u8]) -> Option<PathBuf> {
    mountinfo
        .split(|byte| *byte == b'\n')
        .filter_map(|line| line.split(|byte| *byte == b' ').nth(4))
        .map(unescape)
        .find(|mount| mount.starts_with(tree))
}

/// Mount points have blanks, tabs, newlines and backslashes as octal numbers.
fn unescape(field: &[u8]) -> PathBuf {
    let mut path = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((byte, tail)) = rest.split_first() {
        let code = tail.get(..3).filter(|_| *byte == b'\\');
        let number = code.and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok());
        path.push(number.unwrap_or(*byte));
        rest = if number.is_some() { &tail[3..] } else { tail };
    }
    PathBuf::from(std::ffi::OsStr::from_bytes(&path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_in_a_tree_are_found_also_with_blanks_in_their_names() {
        let mountinfo = b"22 1 8:1 / / rw - ext4 /dev/sda1 rw\n\
            30 22 0:25 / /run/pods/a\\040b/share rw - tmpfs tmpfs rw\n";
        assert_eq!(mount_below(Path::new("/run/pods/a b"), mountinfo), Some("/run/pods/a b/share".into()));
        assert_eq!(mount_below(Path::new("/run/pods/a"), mountinfo), None);
        assert_eq!(unescape(b"/x\\134y\\0"), Path::new("/x\\y\\0"));
    }

    #[tokio::test]
    async fn removing_what_is_not_there_succeeds() {
        let dir = tempfile::tempdir().unwrap();
        let tree = dir.path().join("a/b");
        make_private_dir(tree.clone()).await.unwrap();
        write_json(tree.join("x.json"), &7).await.unwrap();
        assert_eq!(read_json(&tree.join("x.json")).unwrap(), Some(7));
        assert_eq!(read_json::<u8>(&tree.join("y.json")).unwrap(), None);
        remove_tree(dir.path().join("a")).await.unwrap();
        remove_tree(dir.path().join("a")).await.unwrap();
    }
}
