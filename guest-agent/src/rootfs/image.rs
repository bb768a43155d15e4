//! Image volumes: the layers of an image on top of each other, read-only, once a pod.

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use super::{erofs::Layers, lookup::Root, overlay};
use crate::{
    error::{Failed, Step},
    paths,
};

/// An image that a container mounts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Volume {
    /// File names of EROFS images, lowest first.
    pub layers: Vec<String>,
    /// The directory of the image that is seen; empty for all of it.
    pub sub_path: PathBuf,
}

/// The images that are mounted. They stay until the guest ends, as their layers do.
#[derive(Debug, Default)]
pub struct Images {
    mounted: Mutex<HashMap<Vec<String>, PathBuf>>,
}

impl Images {
    /// Where the image of these layers is.
    pub fn mount(&self, layers: &Arc<Layers>, names: &[String]) -> Result<PathBuf, Failed> {
        let mut mounted = self.mounted.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(path) = mounted.get(names) {
            return Ok(path.clone());
        }
        let images = Path::new(paths::IMAGES);
        let (target, nothing) = (images.join(mounted.len().to_string()), images.join("empty"));
        for directory in [&target, &nothing] {
            fs::create_dir_all(directory).step(|| format!("create {}", directory.display()))?;
        }
        overlay::mount_read_only(layers, names, &nothing, &target)?;
        mounted.insert(names.to_vec(), target.clone());
        Ok(target)
    }
}

/// A directory in a mounted image. It is what it is as long as the pod lives: nobody can write into an image.
pub fn directory(image: &Path, sub_path: &Path) -> Result<PathBuf, Failed> {
    if sub_path.as_os_str().is_empty() {
        return Ok(image.to_owned());
    }
    Root::open(image)?.directory_beneath(sub_path)
}
