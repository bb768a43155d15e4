//! EROFS layer files, attached read-only to the shared directory: once for all containers that use one.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use rustix::{
    fs::FileType,
    mount::{UnmountFlags, unmount},
};

use super::shared_dir::{Place, SharedDir};
use crate::sys::{
    mount::{Attributes, Detached},
    namespace::HostNamespace,
    thread::blocking,
};

/// The most layers of one container: what an overlay takes.
pub const MOST_LAYERS: usize = 500;

/// The layers that are attached.
#[derive(Debug, Default)]
pub struct Layers {
    /// Names are never used twice: the guest remembers them.
    next: u64,
    attached: Vec<Layer>,
}

#[derive(Debug)]
struct Layer {
    /// Device and inode of the file.
    identity: (u64, u64),
    name: String,
    users: usize,
}

impl Layers {
    /// Attaches a container's layers; answers their names in the shared directory, in the same order. Each counts one
    /// user more, to be given back by [`Layers::release`], also after an error.
    ///
    /// # Errors
    /// A file is not there, is none, or cannot be attached.
    pub async fn attach(
        &mut self,
        host: &HostNamespace,
        share: &SharedDir,
        files: &[PathBuf],
        names: &mut Vec<String>,
    ) -> io::Result<()> {
        let paths = files.to_vec();
        let trees = host
            .run(move || {
                let open = |path: &PathBuf| {
                    open(path)
                        .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))
                };
                paths.iter().map(open).collect::<io::Result<Vec<_>>>()
            })
            .await?;
        for tree in trees {
            names.push(self.attach_one(tree, share).await?);
        }
        Ok(())
    }

    async fn attach_one(&mut self, tree: Detached, share: &SharedDir) -> io::Result<String> {
        let identity = tree.identity()?;
        if let Some(layer) = self.attached.iter_mut().find(|layer| layer.identity == identity) {
            layer.users += 1;
            return Ok(layer.name.clone());
        }
        let name = self.next.to_string();
        self.next += 1;
        let place = share.layer(&name);
        blocking(move || {
            place.make_file()?;
            tree.attach(&place.seen)
        })
        .await?;
        self.attached.push(Layer { identity, name: name.clone(), users: 1 });
        Ok(name)
    }

    /// Gives layers back. Those that nobody uses any more are detached by [`Layers::sweep`].
    pub async fn release(&mut self, share: &SharedDir, names: &[String]) {
        // A container may use one layer several times: in its root filesystem and in image volumes.
        for name in names {
            if let Some(layer) = self.attached.iter_mut().find(|layer| layer.name == *name) {
                layer.users = layer.users.saturating_sub(1);
            }
        }
        self.sweep(share).await;
    }

    /// Detaches the layers that nobody uses, where the guest has let go of them. The others stay for the next
    /// container that wants them, or until the pod ends.
    pub async fn sweep(&mut self, share: &SharedDir) {
        let unused = self.attached.iter().filter(|layer| layer.users == 0);
        let places: Vec<_> = unused.map(|layer| (layer.name.clone(), share.layer(&layer.name))).collect();
        if places.is_empty() {
            return;
        }
        let detached = blocking(move || {
            let gone = places.into_iter().filter(|(_, place)| detach(place).is_ok());
            Ok(gone.map(|(name, _)| name).collect::<Vec<_>>())
        })
        .await
        .unwrap_or_default();
        self.attached.retain(|layer| !detached.contains(&layer.name));
    }
}

fn open(path: &Path) -> io::Result<Detached> {
    let tree = Detached::clone_of(path, false)?;
    if tree.file_type()? != FileType::RegularFile {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "a layer is a regular file"));
    }
    // Before it is attached: a bind mount that is made read-only afterwards stays writable for virtiofsd.
    tree.change(Attributes {
        set: libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV,
        propagation: libc::MS_PRIVATE,
        recursive: false,
    })?;
    Ok(tree)
}

fn detach(place: &Place) -> io::Result<()> {
    unmount(&place.seen, UnmountFlags::NOFOLLOW)?;
    fs::remove_file(&place.behind)
}
