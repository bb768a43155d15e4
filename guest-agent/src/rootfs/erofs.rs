//! Image layers: EROFS images in files of the share, mounted straight from the file, once a pod.

use std::{
    collections::HashMap,
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use a3s_box_proto::ports::SHARE_LAYERS;
use nix::mount::{MsFlags, mount};
use rustix::fs::{Advice, fadvise};

use super::namespace::MountNamespace;
use crate::{
    error::{Failed, Step},
    paths,
};

/// The layers that are mounted, in a namespace of their own. They stay until the guest ends: several containers use them, and the
/// host frees the files with the whole pod.
#[derive(Debug)]
pub struct Layers {
    namespace: MountNamespace,
    mounted: Mutex<Mounted>,
}

#[derive(Debug, Default)]
struct Mounted {
    layers: HashMap<String, Layer>,
    /// Mount points are numbered: an overlay of many layers has little room for each name.
    next: usize,
}

#[derive(Debug)]
struct Layer {
    /// Where it is mounted.
    target: PathBuf,
    /// Its file in the share, opened when its copies are to be forgotten.
    file: Option<File>,
}

/// So many new layers are looked up by reading their directory: opening, reading and closing it are three requests to the host.
const MANY: usize = 4;

impl Layers {
    /// None yet. What is mounted later elsewhere, their namespace does not see.
    pub fn new() -> Result<Self, Failed> {
        Ok(Self { namespace: MountNamespace::copy("layers")?, mounted: Mutex::default() })
    }

    /// Works in their namespace with these layers, by the places where they are mounted, in the same order.
    pub fn with<T: Send + 'static>(
        self: &Arc<Self>,
        names: &[String],
        work: impl FnOnce(&[PathBuf]) -> Result<T, Failed> + Send + 'static,
    ) -> Result<T, Failed> {
        let (layers, names) = (Arc::clone(self), names.to_owned());
        self.namespace.run(move || {
            let places = layers.mounted().places(&names)?;
            work(&places)
        })?
    }

    /// Frees memory: what was read of a layer in small pieces is kept twice, as its files' content, which serves on, and as the
    /// layer's file.
    ///
    /// The mount option `directio` would spare the second copy, but with it each small file is a request to the host, and without
    /// it a window of many files is. Large pieces have no second copy: see packaging/kernel/patches.
    /// The last failure is answered, after all have been tried.
    pub fn forget_copies(&self) -> io::Result<()> {
        let mut outcome = Ok(());
        for (name, layer) in &mut self.mounted().layers {
            if let Err(error) = layer.forget_copy(name) {
                outcome = Err(error);
            }
        }
        outcome
    }

    fn mounted(&self) -> MutexGuard<'_, Mounted> {
        self.mounted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Layer {
    fn forget_copy(&mut self, name: &str) -> io::Result<()> {
        let file = match &mut self.file {
            Some(file) => file,
            none => none.insert(File::open(source(name))?),
        };
        Ok(fadvise(&*file, 0, None, Advice::DontNeed)?)
    }
}

impl Mounted {
    /// Where layers are mounted. What fails leaves those before it mounted.
    fn places(&mut self, names: &[String]) -> Result<Vec<PathBuf>, Failed> {
        if names.iter().filter(|name| !self.layers.contains_key(*name)).count() >= MANY {
            // The host answers what all of them are at once, and the kernel remembers it for a second.
            let _ = fs::read_dir(Path::new(paths::SHARE).join(SHARE_LAYERS)).map(Iterator::count);
        }
        names.iter().map(|name| self.place(name)).collect()
    }

    fn place(&mut self, name: &str) -> Result<PathBuf, Failed> {
        if let Some(layer) = self.layers.get(name) {
            return Ok(layer.target.clone());
        }
        self.next += 1;
        let target = Path::new(paths::LAYERS).join(self.next.to_string());
        mount_layer(name, &target)?;
        self.layers.insert(name.to_owned(), Layer { target: target.clone(), file: None });
        Ok(target)
    }
}

fn source(name: &str) -> PathBuf {
    Path::new(paths::SHARE).join(SHARE_LAYERS).join(name)
}

fn mount_layer(name: &str, target: &Path) -> Result<(), Failed> {
    let source = source(name);
    fs::create_dir_all(target).step(|| format!("create {}", target.display()))?;
    // No MS_NOSUID: setuid programs of an image keep their bit.
    let flags = MsFlags::MS_RDONLY | MsFlags::MS_NODEV;
    mount(Some(&source), target, Some("erofs"), flags, None::<&str>)
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
