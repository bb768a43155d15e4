//! The overlay of image layers and a writable layer.

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt, chown},
    path::{Path, PathBuf},
};

use super::scratch::WritableLayer;
use crate::{
    error::{Failed, Step},
    sys::mount::FsContext,
};

/// Mounts it. `layers` are lowest first.
pub fn mount(layers: &[PathBuf], writable: &WritableLayer, target: &Path) -> Result<(), Failed> {
    let (upper, work) = (writable.upper(), writable.work());
    let top = layers
        .last()
        .ok_or_else(|| Failed::because("mount the overlay", "an image has at least one layer"))?;
    copy_owner_and_mode(top, &upper)?;
    mount_layers(layers, &upper, &work, target)
        .step(|| format!("mount the overlay of {} layers at {}", layers.len(), target.display()))
}

fn mount_layers(layers: &[PathBuf], upper: &Path, work: &Path, target: &Path) -> std::io::Result<()> {
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
    overlay.mount()?.attach(target)
}

/// Mounts layers that nobody writes, lowest first. `nothing` is an empty directory: an overlay without a writable layer
/// wants two layers at least, and one layer alone would show its whiteouts.
pub fn mount_read_only(layers: &[PathBuf], nothing: &Path, target: &Path) -> Result<(), Failed> {
    let mount = || {
        let overlay = FsContext::open("overlay")?;
        for layer in layers.iter().rev().map(PathBuf::as_path).chain([nothing]) {
            overlay.set("lowerdir+", &layer.to_string_lossy())?;
        }
        overlay.set("redirect_dir", "nofollow")?;
        overlay.set("metacopy", "off")?;
        overlay.mount()?.attach(target)
    };
    mount().step(|| format!("mount an image of {} layers at {}", layers.len(), target.display()))
}

/// The merged root is the upper directory's: it looks as the image's.
fn copy_owner_and_mode(from: &Path, to: &Path) -> Result<(), Failed> {
    let like = fs::metadata(from).step(|| format!("stat the root of layer {}", from.display()))?;
    let step = || format!("set owner and mode of {}", to.display());
    chown(to, Some(like.uid()), Some(like.gid())).step(step)?;
    fs::set_permissions(to, fs::Permissions::from_mode(like.mode() & 0o7777)).step(step)
}
