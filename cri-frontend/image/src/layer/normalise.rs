//! Turns any layer's tar stream into one that `mkfs.erofs` converts without damage.
//!
//! Entries are applied in order, as containerd applies them to a directory, to a tree of names; what comes out has
//! canonical names, whiteouts as overlay's 0/0 devices, and each directory once, at the end, when its attributes are
//! final: a parent that the layer leaves out takes those of the layers below.

use std::io::{Read, Write};

use tar::EntryType;

use super::{
    LayerError, Limits,
    attributes::{self, Attributes},
    emit::Body,
    limits::MAX_PATH,
    output::{Outcome, Output},
    path,
    reader::{Entry, TarReader},
    resolve,
    sparse::SparseRecords,
    stack::Below,
    tree::{Kind, NodeId},
};

const WHITEOUT: &[u8] = b".wh.";
/// Names that aufs keeps for itself, the opaque marker aside.
const AUFS: &[u8] = b".wh..wh.";
const OPAQUE_MARKER: &[u8] = b".wh..wh..opq";
const USER_XATTR: &[u8] = b"user.";

/// Reads a layer up to the end of the archive, and writes it anew.
///
/// A layer that says nothing about the root directory leaves it as it is below. Nearly always that is the default: so
/// that it need not wait for the layers below, a layer has that, unless it is told to inherit or waits anyway.
pub(super) fn normalise<R: Read, W: Write>(
    stream: R,
    out: W,
    below: &mut dyn Below,
    inherit_root: bool,
    limits: Limits,
) -> Result<Outcome, LayerError> {
    let mut reader = TarReader::new(stream);
    let mut output = Output::new(out, below, limits);
    while let Some(entry) = reader.next()? {
        output.apply(entry, &mut reader)?;
    }
    output.finish(inherit_root)
}

impl<W: Write> Output<'_, W> {
    fn apply<R: Read>(&mut self, entry: Entry, reader: &mut TarReader<R>) -> Result<(), LayerError> {
        self.count()?;
        let (attributes, sparse) = attributes::read(&entry, self.limits().xattr_bytes)?;
        let name = sparse.name.clone().unwrap_or_else(|| entry.name.clone());
        let components = path::components(&name)?;
        let Some((base, parents)) = components.split_last() else {
            return self.root(&entry, attributes);
        };
        if components.iter().any(|part| part.starts_with(AUFS) && *part != OPAQUE_MARKER) {
            return Ok(());
        }
        if parents.iter().any(|part| part.starts_with(WHITEOUT)) {
            return Err(LayerError::entry(&name, "its name leads through a whiteout"));
        }
        if let Some(hidden) = base.strip_prefix(WHITEOUT) {
            return self.whiteout(&name, hidden, parents);
        }
        let parent = resolve::directory(self, parents)?;
        let place = Place { parent, base, name: &name };
        match entry.kind {
            EntryType::Directory => self.directory(place, attributes),
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                self.file(place, &attributes, entry, sparse, reader)
            }
            _ => self.special(place, attributes, &entry),
        }
    }

    fn root(&mut self, entry: &Entry, attributes: Attributes) -> Result<(), LayerError> {
        // As containerd: whatever else resolves to the root is ignored.
        if entry.kind == EntryType::Directory {
            self.set_root(attributes)?;
        }
        Ok(())
    }

    fn whiteout(&mut self, name: &[u8], hidden: &[u8], parents: &[&[u8]]) -> Result<(), LayerError> {
        if [b"".as_slice(), b".", b".."].contains(&hidden) {
            return Err(LayerError::entry(name, "a whiteout must name what it hides"));
        }
        let parent = resolve::directory(self, parents)?;
        if hidden == &OPAQUE_MARKER[WHITEOUT.len()..] {
            self.make_opaque(parent);
            return Ok(());
        }
        match self.tree.child(parent, hidden) {
            // A whiteout hides what lies below only. Something of this layer does so already; a directory merges.
            Some((id, Kind::Directory(_))) => self.make_opaque(id),
            Some(_) => {}
            None => self.put_whiteout(parent, hidden)?,
        }
        Ok(())
    }

    fn directory(&mut self, place: Place<'_>, attributes: Attributes) -> Result<(), LayerError> {
        let path = self.path(place)?;
        match self.tree.child(place.parent, place.base) {
            Some((_, Kind::Directory(index))) => self.merge(index, attributes),
            None => self.put_directory(place.parent, place.base, attributes, false).map(drop),
            Some((_, replaced)) => {
                self.put_directory(place.parent, place.base, attributes, replaced == Kind::Whiteout)?;
                // The converter makes missing directories by itself, but not where something else stands.
                self.emit(&path, &Attributes::default(), Body::Directory)
            }
        }
    }

    fn file<R: Read>(
        &mut self,
        place: Place<'_>,
        attributes: &Attributes,
        entry: Entry,
        records: SparseRecords,
        reader: &mut TarReader<R>,
    ) -> Result<(), LayerError> {
        let path = self.path(place)?;
        self.tree.put(place.parent, place.base, Kind::File)?;
        let records = match entry.sparse {
            Some((map, size)) => SparseRecords::from_header(map, size),
            None => records,
        };
        let mut data = reader.data();
        match records.open(&mut data, place.name)? {
            Some((size, mut whole)) => self.write_file(&path, attributes, size, &mut whole),
            None => self.write_file(&path, attributes, entry.size, &mut reader.data()),
        }
    }

    fn special(
        &mut self,
        place: Place<'_>,
        mut attributes: Attributes,
        entry: &Entry,
    ) -> Result<(), LayerError> {
        // As containerd: Linux has none of these on anything but files and directories, and could not copy them up.
        attributes.xattrs.retain(|(name, _)| !name.starts_with(USER_XATTR));
        let attributes = &attributes;
        let device = || device_numbers(entry, place.name);
        match entry.kind {
            EntryType::Symlink => self.symlink(place, attributes, &entry.link),
            EntryType::Link => self.hard_link(place, &entry.link),
            // An overlay takes this device for a whiteout wherever it comes from.
            EntryType::Char if device()? == (0, 0) => self.put_whiteout(place.parent, place.base),
            EntryType::Char => {
                let (major, minor) = device()?;
                self.put_file(place, attributes, Body::Character(major, minor))
            }
            EntryType::Block => {
                let (major, minor) = device()?;
                self.put_file(place, attributes, Body::Block(major, minor))
            }
            EntryType::Fifo => self.put_file(place, attributes, Body::Fifo),
            other => {
                let reason = format!("its type {:?} is unknown", char::from(other.as_byte()));
                Err(LayerError::entry(place.name, reason))
            }
        }
    }

    fn put_file(
        &mut self,
        place: Place<'_>,
        attributes: &Attributes,
        body: Body<'_>,
    ) -> Result<(), LayerError> {
        let path = self.path(place)?;
        self.tree.put(place.parent, place.base, Kind::File)?;
        self.emit(&path, attributes, body)
    }

    fn symlink(
        &mut self,
        place: Place<'_>,
        attributes: &Attributes,
        target: &[u8],
    ) -> Result<(), LayerError> {
        if target.is_empty() || target.len() > MAX_PATH || target.contains(&0) {
            return Err(LayerError::entry(place.name, "its target is empty, too long or has a NUL byte"));
        }
        let path = self.path(place)?;
        self.put_symlink(place.parent, place.base, target)?;
        // Linux knows no other mode of a link, whatever a header says.
        self.emit(&path, &Attributes { mode: 0o777, ..attributes.clone() }, Body::Symlink(target))
    }

    fn hard_link(&mut self, place: Place<'_>, link: &[u8]) -> Result<(), LayerError> {
        let components = path::components(link)?;
        let no_target =
            || LayerError::entry(place.name, "it links to something that is not there, or to a directory");
        let (base, parents) = components.split_last().ok_or_else(no_target)?;
        let target_parent = resolve::directory(self, parents)?;
        if (target_parent, *base) == (place.parent, place.base) {
            return Err(LayerError::entry(place.name, "it links to itself"));
        }
        let kind = match self.tree.child(target_parent, base) {
            Some((_, kind @ (Kind::File | Kind::Symlink(_)))) => kind,
            Some(_) => return Err(no_target()),
            None => self.copy_up(target_parent, base)?.ok_or_else(no_target)?,
        };
        let target = self.tree.path_in(target_parent, base);
        let path = self.path(place)?;
        self.tree.put(place.parent, place.base, kind)?;
        self.emit(&path, &Attributes::default(), Body::Hardlink(&target))
    }

    /// Brings something of the layers below into this one, as an overlay does before it makes a link to it.
    fn copy_up(&mut self, parent: NodeId, base: &[u8]) -> Result<Option<Kind>, LayerError> {
        let Some(found) = self.lower(parent, base)? else { return Ok(None) };
        if found.inode.is_directory() {
            return Ok(None);
        }
        self.count()?;
        let attributes = found.attributes()?;
        let place = Place { parent, base, name: base };
        if found.inode.is_symlink() {
            self.symlink(place, &attributes, &found.target()?)?;
        } else if found.inode.is_file() {
            let path = self.path(place)?;
            self.tree.put(parent, base, Kind::File)?;
            self.write_file(&path, &attributes, found.inode.size, &mut found.reader())?;
        } else {
            let (major, minor) = found.inode.device();
            let body = match found.inode.mode & libc::S_IFMT {
                libc::S_IFCHR => Body::Character(major, minor),
                libc::S_IFBLK => Body::Block(major, minor),
                _ => Body::Fifo,
            };
            self.put_file(place, &attributes, body)?;
        }
        Ok(self.tree.child(parent, base).map(|(_, kind)| kind))
    }

    fn path(&self, place: Place<'_>) -> Result<Vec<u8>, LayerError> {
        let path = self.tree.path_in(place.parent, place.base);
        let most = self.limits().path_bytes;
        if path.len() > most {
            let reason = format!("its path is longer than {most} bytes (images.max_path_bytes)");
            return Err(LayerError::entry(place.name, reason));
        }
        Ok(path)
    }
}

/// Where an entry goes, and what its name was.
#[derive(Clone, Copy)]
struct Place<'a> {
    parent: NodeId,
    base: &'a [u8],
    name: &'a [u8],
}

/// Major and minor, as far as the converter's and the kernel's form of them go.
fn device_numbers(entry: &Entry, name: &[u8]) -> Result<(u32, u32), LayerError> {
    let numbers = || -> std::io::Result<Option<(u32, u32)>> {
        let (major, minor) = (entry.header.device_major()?, entry.header.device_minor()?);
        Ok(Some((major.unwrap_or(0), minor.unwrap_or(0))))
    };
    match numbers() {
        Ok(Some((major @ 0..=0xfff, minor @ 0..=0xf_ffff))) => Ok((major, minor)),
        _ => Err(LayerError::entry(name, "its device numbers make no sense")),
    }
}
