//! Image layers: EROFS images in files of the share, mounted straight from the file, once a pod.

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use a3s_box_proto::ports::SHARE_LAYERS;
use nix::mount::{MsFlags, mount};

use crate::{
    error::{Failed, Step},
    paths,
};

/// The layers that are mounted. They stay until the guest ends: several containers use them, and the host frees the
/// files with the whole pod.
#[derive(Debug, Default)]
pub struct Layers {
    mounted: Mutex<HashMap<String, PathBuf>>,
}

impl Layers {
    /// Where these layers are mounted, in the same order.
    pub fn mount(&self, names: &[String]) -> Result<Vec<PathBuf>, Failed> {
        let mut mounted = self.mounted.lock().unwrap_or_else(PoisonError::into_inner);
        names
            .iter()
            .map(|name| {
                if let Some(path) = mounted.get(name) {
                    return Ok(path.clone());
                }
                // Short names: an overlay of many layers has little room for each.
                let target = Path::new(paths::LAYERS).join(mounted.len().to_string());
                mount_layer(name, &target)?;
                mounted.insert(name.clone(), target.clone());
                Ok(target)
            })
            .collect()
    }
}

fn mount_layer(name: &str, target: &Path) -> Result<(), Failed> {
    let source = Path::new(paths::SHARE).join(SHARE_LAYERS).join(name);
    fs::create_dir_all(target).step(|| format!("create {}", target.display()))?;
    // No MS_NOSUID: setuid programs of an image keep their bit. `directio`: else the guest caches everything twice,
    // as a file of the share and as what it holds.
    let flags = MsFlags::MS_RDONLY | MsFlags::MS_NODEV;
    mount(Some(&source), target, Some("erofs"), flags, Some("directio"))
        .step(|| format!("mount layer {name} (erofs, {})", source.display()))
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
