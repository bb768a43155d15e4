//! The layers below a layer, merged as an overlay would merge them.

use std::{
    io::{self, Read},
    path::Path,
    sync::Arc,
};

use super::{
    LayerError,
    attributes::Attributes,
    erofs::{Erofs, Inode},
};

/// Stored layers, the lowest first, down to the last one that hides all below it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Stack {
    layers: Vec<Arc<Erofs>>,
}

/// Where the layers below come from: they may still be in the making, so asking may wait.
pub(crate) trait Below {
    /// The layers below, complete.
    fn stack(&mut self) -> Result<&Stack, LayerError>;

    /// Whether a layer below is known by now to have another root directory than the default one. Does not wait.
    fn has_unusual_root(&self) -> bool;

    /// Tells the layers above that this one has another root directory than the default one.
    fn tell_unusual_root(&self);
}

/// A thing below: which layer's, and what.
#[derive(Debug, Clone)]
pub(super) struct Lower {
    layer: Arc<Erofs>,
    /// What it is.
    pub inode: Inode,
}

impl Lower {
    /// Where a symbolic link points.
    pub(super) fn target(&self) -> Result<Vec<u8>, LayerError> {
        self.layer.named(self.layer.target(&self.inode))
    }

    /// Mode, owner, time and extended attributes, the overlay's own aside.
    pub(super) fn attributes(&self) -> Result<Attributes, LayerError> {
        let mut xattrs = self.layer.named(self.layer.xattrs(&self.inode))?;
        xattrs.retain(|(name, _)| !name.starts_with(b"trusted.overlay."));
        Ok(Attributes {
            mode: self.inode.mode & 0o7777,
            uid: self.inode.uid,
            gid: self.inode.gid,
            mtime: self.inode.mtime,
            nanoseconds: self.inode.nanoseconds,
            xattrs,
        })
    }

    /// Reads a file from its start.
    pub(super) fn reader(&self) -> LowerReader<'_> {
        LowerReader { file: self, position: 0 }
    }
}

/// Reads a file of a stored layer.
pub(super) struct LowerReader<'a> {
    file: &'a Lower,
    position: u64,
}

impl Read for LowerReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.file.inode.size - self.position).unwrap_or(usize::MAX);
        let length = buffer.len().min(left);
        self.file.layer.read_at(&self.file.inode, self.position, &mut buffer[..length])?;
        self.position += length as u64;
        Ok(length)
    }
}

impl Stack {
    /// Opens layers, the lowest first. Those below one that hides them are left out.
    pub(crate) fn open<'a>(layers: impl Iterator<Item = (&'a Path, bool)>) -> Result<Self, LayerError> {
        let mut visible = Vec::new();
        for (file, hides_all_below) in layers {
            if hides_all_below {
                visible.clear();
            }
            visible.push(file);
        }
        let opened =
            visible.into_iter().map(|file| Erofs::open(file).map(Arc::new)).collect::<Result<_, _>>()?;
        Ok(Self { layers: opened })
    }

    /// Whether a layer that says nothing about the root directory is the same above this as above nothing.
    pub(crate) fn has_default_root(&self) -> Result<bool, LayerError> {
        self.root()?.map_or(Ok(true), |root| Ok(root.attributes()?.is_default_root()))
    }

    /// The root directory of the topmost layer, which is the merged one's.
    pub(super) fn root(&self) -> Result<Option<Lower>, LayerError> {
        let Some(layer) = self.layers.last() else { return Ok(None) };
        Ok(Some(Lower { layer: layer.clone(), inode: layer.named(layer.root())? }))
    }

    /// What stands at a path, whose links are not followed.
    pub(super) fn find(&self, path: &[&[u8]]) -> Result<Option<Lower>, LayerError> {
        let mut merged = Vec::new();
        for layer in self.layers.iter().rev() {
            merged.push(Lower { layer: layer.clone(), inode: layer.named(layer.root())? });
        }
        for (depth, name) in path.iter().enumerate() {
            merged = step(&merged, name)?;
            let Some(top) = merged.first() else { return Ok(None) };
            if !top.inode.is_directory() && depth + 1 < path.len() {
                return Ok(None);
            }
        }
        Ok(merged.into_iter().next())
    }
}

/// One name in a merged directory: the directories that merge there, topmost first, or one other thing.
fn step(directories: &[Lower], name: &[u8]) -> Result<Vec<Lower>, LayerError> {
    let mut merged = Vec::new();
    for Lower { layer, inode } in directories {
        let Some(child) = layer.named(layer.lookup(inode, name))? else { continue };
        if child.is_whiteout() {
            break;
        }
        if !child.is_directory() {
            if merged.is_empty() {
                merged.push(Lower { layer: layer.clone(), inode: child });
            }
            break;
        }
        let opaque = layer.named(layer.is_opaque(&child))?;
        merged.push(Lower { layer: layer.clone(), inode: child });
        if opaque {
            break;
        }
    }
    Ok(merged)
}
