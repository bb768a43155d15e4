//! Image layers: EROFS images in files of the share, mounted straight from the file, once a pod.

use std::{
    collections::HashMap,
    fs::{self, File},
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

use a3s_box_proto::ports::SHARE_LAYERS;
use nix::mount::{MsFlags, mount};
use rustix::fs::{Advice, fadvise};

use crate::{
    error::{Failed, Step},
    paths,
};

/// The layers that are mounted. They stay until the guest ends: several containers use them, and the host frees the
/// files with the whole pod.
#[derive(Debug, Default)]
pub struct Layers {
    mounted: Mutex<HashMap<String, Layer>>,
}

#[derive(Debug)]
struct Layer {
    /// Where it is mounted.
    target: PathBuf,
    /// Its file in the share.
    file: File,
}

impl Layers {
    /// Where these layers are mounted, in the same order.
    pub fn mount(&self, names: &[String]) -> Result<Vec<PathBuf>, Failed> {
        let mut mounted = self.mounted();
        names
            .iter()
            .map(|name| {
                if let Some(layer) = mounted.get(name) {
                    return Ok(layer.target.clone());
                }
                // Short names: an overlay of many layers has little room for each.
                let target = Path::new(paths::LAYERS).join(mounted.len().to_string());
                let file = mount_layer(name, &target)?;
                mounted.insert(name.clone(), Layer { target: target.clone(), file });
                Ok(target)
            })
            .collect()
    }

    /// Frees memory: what was read of a layer in small pieces is kept twice, as its files' content, which serves on, and as the
    /// layer's file.
    ///
    /// The mount option `directio` would spare the second copy, but with it each small file is a request to the host, and without
    /// it a window of many files is. Large pieces have no second copy: see packaging/kernel/patches.
    pub fn forget_copies(&self) -> rustix::io::Result<()> {
        self.mounted().values().try_for_each(|layer| fadvise(&layer.file, 0, None, Advice::DontNeed))
    }

    fn mounted(&self) -> MutexGuard<'_, HashMap<String, Layer>> {
        self.mounted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn mount_layer(name: &str, target: &Path) -> Result<File, Failed> {
    let source = Path::new(paths::SHARE).join(SHARE_LAYERS).join(name);
    let step = || format!("mount layer {name} (erofs, {})", source.display());
    fs::create_dir_all(target).step(|| format!("create {}", target.display()))?;
    let file = File::open(&source).step(step)?;
    // No MS_NOSUID: setuid programs of an image keep their bit.
    let flags = MsFlags::MS_RDONLY | MsFlags::MS_NODEV;
    mount(Some(&source), target, Some("erofs"), flags, None::<&str>).step(step)?;
    Ok(file)
}

/// Whether that is a file name and nothing more.
pub fn is_layer_name(name: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | ':');
    !name.is_empty() && name.len() <= 255 && !name.starts_with('.') && name.chars().all(allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_layer_is_a_file_of_its_directory() {
        assert!(is_layer_name("sha256:0f3e.erofs"));
        for bad in ["", "..", ".x", "a/b", "/etc/passwd", "a b", "a,lowerdir=/"] {
            assert!(!is_layer_name(bad), "{bad:?}");
        }
    }
}
