//! The overlay of image layers and a writable layer.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::{MetadataExt, PermissionsExt, chown},
    path::{Path, PathBuf},
    sync::Arc,
};

use rustix::{
    buffer::spare_capacity,
    fs::{XattrFlags, getxattr, listxattr, setxattr},
};

use super::{erofs::Layers, scratch::WritableLayer};
use crate::{
    error::{Failed, Step},
    sys::mount::{DetachedMount, FsContext},
};

/// Attributes by which the overlay itself marks files. What it marked in a layer is no mark of the upper directory.
const OVERLAYS_OWN: &[u8] = b"trusted.overlay.";
/// XATTR_SIZE_MAX and XATTR_LIST_MAX of linux/limits.h.
const MAX_ATTRIBUTE: usize = 64 << 10;

/// Mounts layers, named lowest first, under a writable one.
pub fn mount(
    layers: &Arc<Layers>,
    names: &[String],
    writable: &WritableLayer,
    target: &Path,
) -> Result<(), Failed> {
    let (upper, work) = (writable.upper(), writable.work());
    let overlay = layers.with(names, move |layers| {
        let step = || format!("make the overlay of {} layers", layers.len());
        let top = layers.last().ok_or_else(|| Failed::because(step(), "an image has at least one layer"))?;
        look_like(top, &upper)?;
        let overlay = match writable_overlay(layers, &upper, &work) {
            // The host's disk was full, say, and something that other containers wrote is lost. They are told by their own
            // overlays. Of a new one the kernel wants that somebody was told before.
            Err(error) if error.raw_os_error() == Some(libc::EIO) => {
                let _ = File::open(&upper).map(rustix::fs::syncfs);
                writable_overlay(layers, &upper, &work)
            }
            made => made,
        };
        overlay.step(step)
    })?;
    overlay.attach(target).step(|| format!("mount the overlay at {}", target.display()))
}

fn writable_overlay(layers: &[PathBuf], upper: &Path, work: &Path) -> io::Result<DetachedMount> {
    // One call a layer: mount(2)'s options end after one page.
    let overlay = FsContext::open("overlay")?;
    for layer in layers.iter().rev() {
        overlay.set("lowerdir+", &layer.to_string_lossy())?;
    }
    overlay.set("upperdir", &upper.to_string_lossy())?;
    overlay.set("workdir", &work.to_string_lossy())?;
    // An image must not be able to point into another one by extended attributes.
    overlay.set("redirect_dir", "nofollow")?;
    overlay.set("metacopy", "off")?;
    overlay.set("index", "off")?;
    // The scratch disk ends with the pod, so an fsync of a container need not reach it.
    overlay.flag("volatile")?;
    overlay.mount()
}

/// Mounts layers that nobody writes, named lowest first. `nothing` is an empty directory: an overlay without a writable layer
/// wants two layers at least, and one layer alone would show its whiteouts.
pub fn mount_read_only(
    layers: &Arc<Layers>,
    names: &[String],
    nothing: &Path,
    target: &Path,
) -> Result<(), Failed> {
    let nothing = nothing.to_owned();
    let overlay = layers.with(names, move |layers| {
        read_only_overlay(layers, &nothing).step(|| format!("make an image of {} layers", layers.len()))
    })?;
    overlay.attach(target).step(|| format!("mount the image at {}", target.display()))
}

fn read_only_overlay(layers: &[PathBuf], nothing: &Path) -> io::Result<DetachedMount> {
    let overlay = FsContext::open("overlay")?;
    for layer in layers.iter().rev().map(PathBuf::as_path).chain([nothing]) {
        overlay.set("lowerdir+", &layer.to_string_lossy())?;
    }
    overlay.set("redirect_dir", "nofollow")?;
    overlay.set("metacopy", "off")?;
    overlay.mount()
}

/// The merged root is the upper directory's: it looks as the image's.
fn look_like(from: &Path, to: &Path) -> Result<(), Failed> {
    let like = fs::metadata(from).step(|| format!("stat the root of layer {}", from.display()))?;
    let step = || format!("set owner, attributes and mode of {}", to.display());
    chown(to, Some(like.uid()), Some(like.gid())).step(step)?;
    copy_attributes(from, to).step(step)?;
    // Last: an access control list changes the mode.
    fs::set_permissions(to, fs::Permissions::from_mode(like.mode() & 0o7777)).step(step)
}

fn copy_attributes(from: &Path, to: &Path) -> rustix::io::Result<()> {
    let (mut names, mut value) = (Vec::with_capacity(MAX_ATTRIBUTE), Vec::with_capacity(MAX_ATTRIBUTE));
    listxattr(from, spare_capacity(&mut names))?;
    for name in names.split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        if !name.starts_with(OVERLAYS_OWN) {
            value.clear();
            getxattr(from, name, spare_capacity(&mut value))?;
            setxattr(to, name, &value, XattrFlags::empty())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_looks_like_another_one() {
        let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let attributes: [(&str, &[u8]); 3] = [("user.a", b"long\0value"), ("user.b", b""), ("user.c", b"c")];
        for (name, value) in attributes {
            setxattr(from.path(), name, value, XattrFlags::empty()).unwrap();
        }
        fs::set_permissions(from.path(), fs::Permissions::from_mode(0o1751)).unwrap();
        look_like(from.path(), to.path()).unwrap();
        assert_eq!(fs::metadata(to.path()).unwrap().mode() & 0o7777, 0o1751);
        for (name, expected) in attributes {
            let mut value = Vec::with_capacity(64);
            getxattr(to.path(), name, spare_capacity(&mut value)).unwrap();
            assert_eq!(value, expected, "{name}");
        }
    }
}
