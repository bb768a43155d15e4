//! A layer as made so far: names, directories' attributes until they are final, and the stream to the converter.

use std::io::{Read, Write};

use super::{
    LayerError, Limits,
    attributes::Attributes,
    emit::{Body, Emitter},
    limits::{Effort, MAX_DIRECTORY_XATTRS},
    stack::{Below, Lower},
    texts::Texts,
    tree::{Kind, NodeId, ROOT, Tree},
};

/// The processor's time is looked at after so many entries.
const EFFORT_STEP: u64 = 16;

/// What was learned of a layer while it was written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Outcome {
    /// It was resolved against the layers below, and is right above these only.
    pub depends_on_lower: bool,
    /// The stream has an entry for the root directory.
    pub has_root: bool,
    /// It hides all layers below.
    pub hides_all_below: bool,
}

/// A directory's attributes until the end.
#[derive(Debug, Default)]
struct Directory {
    attributes: Attributes,
    /// Nothing of the layers below is seen in it.
    opaque: bool,
    /// It holds a whiteout.
    has_whiteout: bool,
}

/// The layer as made so far.
pub(super) struct Output<'a, W> {
    /// All names.
    pub tree: Tree,
    emitter: Emitter<W>,
    directories: Vec<Directory>,
    targets: Texts,
    below: &'a mut dyn Below,
    limits: Limits,
    effort: Effort,
    entries: u64,
    unpacked: u64,
    xattr_bytes: usize,
    outcome: Outcome,
}

impl<'a, W: Write> Output<'a, W> {
    /// Nothing but a root directory.
    pub(super) fn new(out: W, below: &'a mut dyn Below, limits: Limits) -> Self {
        let root = Directory { attributes: Attributes::of_untold_directory(), ..Directory::default() };
        Self {
            tree: Tree::new(),
            emitter: Emitter::new(out),
            directories: vec![root],
            targets: Texts::default(),
            below,
            limits,
            effort: Effort::new(limits),
            entries: 0,
            unpacked: 0,
            xattr_bytes: 0,
            outcome: Outcome::default(),
        }
    }

    /// How large the layer may be.
    pub(super) fn limits(&self) -> Limits {
        self.limits
    }

    /// Hides one name of the layers below.
    pub(super) fn put_whiteout(&mut self, parent: NodeId, base: &[u8]) -> Result<(), LayerError> {
        self.tree.put(parent, base, Kind::Whiteout)?;
        if let Some(directory) = self.attributes_of(parent) {
            directory.has_whiteout = true;
        }
        let path = self.tree.path_in(parent, base);
        self.emit(&path, &Attributes::default(), Body::Character(0, 0))
    }

    /// Hides what the layers below have in a directory.
    pub(super) fn make_opaque(&mut self, id: NodeId) {
        // The root of a merged tree cannot be opaque: the layers below are left out instead.
        self.outcome.hides_all_below |= id == ROOT;
        if let Some(directory) = self.attributes_of(id) {
            directory.opaque = id != ROOT;
        }
    }

    /// Writes a file with its data.
    pub(super) fn write_file(
        &mut self,
        path: &[u8],
        attributes: &Attributes,
        size: u64,
        data: &mut dyn Read,
    ) -> Result<(), LayerError> {
        // Holes are counted: the stream of a sparse file may be a thousandth of what it unpacks to.
        self.unpacked = self.unpacked.saturating_add(size);
        if self.unpacked > self.limits.unpacked {
            return Err(self.limits.unpacked_error());
        }
        self.emitter.file(path, attributes, size, data).map_err(LayerError::from_read)
    }

    /// What the layers below have at a name, unless this layer hides it.
    pub(super) fn lower(&mut self, parent: NodeId, base: &[u8]) -> Result<Option<Lower>, LayerError> {
        self.outcome.depends_on_lower = true;
        if self.outcome.hides_all_below || self.is_hidden(parent) {
            return Ok(None);
        }
        let path = self.tree.path_in(parent, base);
        let components: Vec<&[u8]> = path.split(|byte| *byte == b'/').collect();
        self.below.stack()?.find(&components)
    }

    fn is_hidden(&self, mut id: NodeId) -> bool {
        while id != ROOT {
            let Kind::Directory(index) = self.tree.kind(id) else { return true };
            if self.directories.get(index as usize).is_none_or(|directory| directory.opaque) {
                return true;
            }
            id = self.tree.parent(id);
        }
        false
    }

    /// A parent that the stream leaves out.
    pub(super) fn implicit_directory(
        &mut self,
        parent: NodeId,
        base: &[u8],
        attributes: Option<Attributes>,
    ) -> Result<NodeId, LayerError> {
        self.count()?;
        let attributes = attributes.unwrap_or_else(Attributes::of_untold_directory);
        self.put_directory(parent, base, attributes, false)
    }

    /// A parent that the stream leaves out, after it took away what stood there.
    pub(super) fn new_directory_over_whiteout(
        &mut self,
        parent: NodeId,
        base: &[u8],
    ) -> Result<NodeId, LayerError> {
        self.count()?;
        let id = self.put_directory(parent, base, Attributes::of_untold_directory(), true)?;
        let path = self.tree.path(id);
        self.emit(&path, &Attributes::default(), Body::Directory)?;
        Ok(id)
    }

    /// A new directory; an opaque one hides what the layers below have there.
    pub(super) fn put_directory(
        &mut self,
        parent: NodeId,
        base: &[u8],
        attributes: Attributes,
        opaque: bool,
    ) -> Result<NodeId, LayerError> {
        let index = index(self.directories.len(), base)?;
        self.directories.push(Directory { opaque, ..Directory::default() });
        let id = self.tree.put(parent, base, Kind::Directory(index))?;
        self.merge(index, attributes)?;
        Ok(id)
    }

    /// A repeated directory takes the newer attributes, and keeps extended ones that are not repeated.
    pub(super) fn merge(&mut self, index: u32, mut new: Attributes) -> Result<(), LayerError> {
        self.xattr_bytes += new.xattrs.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>();
        if self.xattr_bytes > MAX_DIRECTORY_XATTRS {
            let what = "bytes of directories' extended attributes";
            return Err(LayerError::Limit { what, limit: MAX_DIRECTORY_XATTRS as u64, key: "fixed" });
        }
        let Some(directory) = self.directories.get_mut(index as usize) else { return Ok(()) };
        for old in std::mem::take(&mut directory.attributes.xattrs) {
            if !new.xattrs.iter().any(|(name, _)| *name == old.0) {
                new.xattrs.push(old);
            }
        }
        directory.attributes = new;
        directory.attributes.check_xattrs()
    }

    fn attributes_of(&mut self, id: NodeId) -> Option<&mut Directory> {
        let Kind::Directory(index) = self.tree.kind(id) else { return None };
        self.directories.get_mut(index as usize)
    }

    /// Notes a symbolic link for later names that lead through it.
    pub(super) fn put_symlink(
        &mut self,
        parent: NodeId,
        base: &[u8],
        target: &[u8],
    ) -> Result<(), LayerError> {
        let index = self.targets.push(target, "bytes of the layer's links' targets")?;
        self.tree.put(parent, base, Kind::Symlink(index)).map(drop)
    }

    /// What the stream says of the root directory.
    pub(super) fn set_root(&mut self, attributes: Attributes) -> Result<(), LayerError> {
        self.outcome.has_root = true;
        if !attributes.is_default_root() {
            self.below.tell_unusual_root();
        }
        self.merge(0, attributes)
    }

    /// A symbolic link's target.
    pub(super) fn target(&self, index: u32) -> &[u8] {
        self.targets.get(index)
    }

    /// Counts one more entry.
    pub(super) fn count(&mut self) -> Result<(), LayerError> {
        self.entries += 1;
        if self.entries > self.limits.entries {
            return Err(self.limits.entries_error());
        }
        if self.entries.is_multiple_of(EFFORT_STEP) { self.effort.check() } else { Ok(()) }
    }

    /// Writes an entry without data.
    pub(super) fn emit(
        &mut self,
        path: &[u8],
        attributes: &Attributes,
        body: Body<'_>,
    ) -> Result<(), LayerError> {
        self.emitter.entry(path, attributes, body).map_err(LayerError::from_read)
    }

    /// Writes all directories, and ends the stream.
    pub(super) fn finish(mut self, inherit_root: bool) -> Result<Outcome, LayerError> {
        if inherit_root || self.outcome.depends_on_lower || self.below.has_unusual_root() {
            self.inherit_root()?;
        }
        for (id, index) in self.tree.directories() {
            let Some(directory) = self.directories.get_mut(index as usize) else { continue };
            let mut attributes = std::mem::take(&mut directory.attributes);
            if directory.opaque {
                attributes.xattrs.push((b"trusted.overlay.opaque".to_vec(), b"y".to_vec()));
            }
            if directory.has_whiteout {
                // Without it the kernel shows whiteouts of a directory that only this layer has (b79e05aaa166).
                attributes.xattrs.push((b"trusted.overlay.origin".to_vec(), Vec::new()));
            }
            let path = self.tree.path(id);
            self.emit(&path, &attributes, Body::Directory)?;
        }
        self.emitter.finish().map_err(LayerError::from_read)?;
        Ok(self.outcome)
    }

    fn inherit_root(&mut self) -> Result<(), LayerError> {
        if self.outcome.has_root || self.outcome.hides_all_below {
            return Ok(());
        }
        let Some(root) = self.below.stack()?.root()? else { return Ok(()) };
        let attributes = root.attributes()?;
        if attributes.is_default_root() && !self.outcome.depends_on_lower {
            return Ok(());
        }
        self.outcome.depends_on_lower = true;
        self.merge(0, attributes)
    }
}

/// A number for one more thing of a kind.
fn index(length: usize, name: &[u8]) -> Result<u32, LayerError> {
    u32::try_from(length).map_err(|_| LayerError::entry(name, "the layer has more entries than can be kept"))
}
