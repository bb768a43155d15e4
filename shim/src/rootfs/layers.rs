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

/// A layer's file that can be attached.
#[derive(Debug)]
pub struct Opened {
    tree: Detached,
    identity: (u64, u64),
}

/// Opens a container's layers.
///
/// # Errors
/// A file is not there, or is none.
pub async fn open(host: &HostNamespace, files: &[PathBuf]) -> io::Result<Vec<Opened>> {
    let paths = files.to_vec();
    let open = |path: &PathBuf| {
        open_one(path).map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))
    };
    host.run(move || paths.iter().map(open).collect()).await
}

impl Layers {
    /// Attaches a container's layers; answers their names in the shared directory, in the same order. Each counts one
    /// user more, to be given back by [`Layers::release`], also after an error.
    ///
    /// # Errors
    /// One cannot be attached.
    pub async fn attach(
        &mut self,
        share: &SharedDir,
        opened: Vec<Opened>,
        names: &mut Vec<String>,
    ) -> io::Result<()> {
        let mut new = Vec::new();
        for Opened { tree, identity } in opened {
            if let Some(layer) = self.attached.iter_mut().find(|layer| layer.identity == identity) {
                layer.users += 1;
                names.push(layer.name.clone());
                continue;
            }
            let name = self.next.to_string();
            self.next += 1;
            new.push((tree, share.layer(&name)));
            names.push(name.clone());
            self.attached.push(Layer { identity, name, users: 1 });
        }
        let first_new = self.attached.len() - new.len();
        let (attached, outcome) = blocking(move || Ok(attach_all(new))).await?;
        for lost in self.attached.drain(first_new + attached..) {
            names.retain(|name| *name != lost.name);
        }
        outcome
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

fn open_one(path: &Path) -> io::Result<Opened> {
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
    Ok(Opened { identity: tree.identity()?, tree })
}

/// Answers how many of them are attached. The first that fails ends it.
fn attach_all(layers: Vec<(Detached, Place)>) -> (usize, io::Result<()>) {
    let mut attached = 0;
    for (tree, place) in layers {
        if let Err(error) = place.make_file().and_then(|()| tree.attach(&place.seen)) {
            return (attached, Err(error));
        }
        attached += 1;
    }
    (attached, Ok(()))
}

fn detach(place: &Place) -> io::Result<()> {
    unmount(&place.seen, UnmountFlags::NOFOLLOW)?;
    fs::remove_file(&place.behind)
}
