//! Reads EROFS files as our `mkfs.erofs` writes them (uncompressed, one device): the layers below a layer are looked
//! up in their own files, so no other index of them can go stale.
//!
//! Layout: `Documentation/filesystems/erofs.rst` in the kernel. Every number is checked: the converter that wrote
//! the file had read what a registry sent.

use std::{
    fs::File,
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use super::LayerError;

const SUPERBLOCK: u64 = 1024;
const MAGIC: u32 = 0xe0f5_e1e2;
const SLOT: u64 = 32;
const DIRENT: usize = 12;
const FLAT_PLAIN: u16 = 0;
const FLAT_INLINE: u16 = 2;
/// Names of extended attributes start with one of these, told by a number.
const XATTR_PREFIXES: [&[u8]; 7] = [
    b"",
    b"user.",
    b"system.posix_acl_access",
    b"system.posix_acl_default",
    b"trusted.",
    b"lustre.",
    b"security.",
];
const OPAQUE: &[u8] = b"trusted.overlay.opaque";

/// A layer's file.
#[derive(Debug)]
pub(crate) struct Erofs {
    file: File,
    path: PathBuf,
    block: u64,
    meta: u64,
    xattrs: u64,
    root: u64,
}

/// A file, directory, link or device in it.
#[derive(Debug, Clone)]
pub(crate) struct Inode {
    /// Type and permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Bytes of a file, or of a link's target.
    pub size: u64,
    /// Seconds since 1970.
    pub mtime: u64,
    /// Nanoseconds beyond.
    pub nanoseconds: u32,
    offset: u64,
    header: u64,
    xattr_size: u64,
    layout: u16,
    /// Where the data starts, or a device's number.
    value: u32,
}

impl Inode {
    fn is(&self, kind: u32) -> bool {
        self.mode & libc::S_IFMT == kind
    }

    pub(crate) fn is_directory(&self) -> bool {
        self.is(libc::S_IFDIR)
    }

    pub(crate) fn is_symlink(&self) -> bool {
        self.is(libc::S_IFLNK)
    }

    pub(crate) fn is_file(&self) -> bool {
        self.is(libc::S_IFREG)
    }

    /// An overlay's mark that nothing below is seen.
    pub(crate) fn is_whiteout(&self) -> bool {
        self.is(libc::S_IFCHR) && self.value == 0
    }

    /// Major and minor, as the kernel's `new_encode_dev` packs them.
    pub(crate) fn device(&self) -> (u32, u32) {
        ((self.value >> 8) & 0xfff, (self.value & 0xff) | ((self.value >> 12) & 0xf_ff00))
    }
}

/// An extended attribute: name and value.
type Xattr = (Vec<u8>, Vec<u8>);

fn corrupt(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

fn bytes<const N: usize>(from: &[u8], at: usize) -> io::Result<[u8; N]> {
    let slice = at.checked_add(N).and_then(|end| from.get(at..end)).ok_or_else(|| corrupt("cut off"))?;
    slice.try_into().map_err(|_| corrupt("cut off"))
}

fn u16_at(from: &[u8], at: usize) -> io::Result<u16> {
    Ok(u16::from_le_bytes(bytes(from, at)?))
}

fn u32_at(from: &[u8], at: usize) -> io::Result<u32> {
    Ok(u32::from_le_bytes(bytes(from, at)?))
}

fn u64_at(from: &[u8], at: usize) -> io::Result<u64> {
    Ok(u64::from_le_bytes(bytes(from, at)?))
}

impl Erofs {
    /// Opens a layer's file.
    pub(crate) fn open(path: &Path) -> Result<Self, LayerError> {
        Self::read_superblock(path).map_err(|source| LayerError::Stored { path: path.to_owned(), source })
    }

    fn read_superblock(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        let mut superblock = [0; 128];
        file.read_exact_at(&mut superblock, SUPERBLOCK)?;
        if u32_at(&superblock, 0)? != MAGIC {
            return Err(corrupt("no EROFS file"));
        }
        let block_bits = superblock[12];
        if !(9..=16).contains(&block_bits) {
            return Err(corrupt("an impossible block size"));
        }
        let block = 1 << block_bits;
        Ok(Self {
            file,
            path: path.to_owned(),
            block,
            root: u16_at(&superblock, 14)?.into(),
            meta: u64::from(u32_at(&superblock, 40)?) * block,
            xattrs: u64::from(u32_at(&superblock, 44)?) * block,
        })
    }

    /// Says which file an error is about.
    pub(crate) fn named<T>(&self, result: io::Result<T>) -> Result<T, LayerError> {
        result.map_err(|source| LayerError::Stored { path: self.path.clone(), source })
    }

    /// The root directory.
    pub(crate) fn root(&self) -> io::Result<Inode> {
        self.inode(self.root)
    }

    fn inode(&self, number: u64) -> io::Result<Inode> {
        let offset = number
            .checked_mul(SLOT)
            .and_then(|slot| slot.checked_add(self.meta))
            .ok_or_else(|| corrupt("an impossible inode number"))?;
        let mut raw = [0; 64];
        self.file.read_exact_at(&mut raw[..32], offset)?;
        let format = u16_at(&raw, 0)?;
        let icount = u64::from(u16_at(&raw, 2)?);
        let xattr_size = if icount == 0 { 0 } else { 12 + (icount - 1) * 4 };
        let mode = u16_at(&raw, 4)?.into();
        let layout = (format >> 1) & 7;
        let value = u32_at(&raw, 16)?;
        if format & 1 == 0 {
            return Ok(Inode {
                mode,
                uid: u16_at(&raw, 24)?.into(),
                gid: u16_at(&raw, 26)?.into(),
                size: u32_at(&raw, 8)?.into(),
                mtime: 0,
                nanoseconds: 0,
                offset,
                header: 32,
                xattr_size,
                layout,
                value,
            });
        }
        self.file.read_exact_at(&mut raw[32..], offset + 32)?;
        Ok(Inode {
            mode,
            uid: u32_at(&raw, 24)?,
            gid: u32_at(&raw, 28)?,
            size: u64_at(&raw, 8)?,
            mtime: u64_at(&raw, 32)?,
            nanoseconds: u32_at(&raw, 40)?,
            offset,
            header: 64,
            xattr_size,
            layout,
            value,
        })
    }

    /// Fills a buffer from an inode's data.
    pub(crate) fn read_at(&self, inode: &Inode, mut offset: u64, mut buffer: &mut [u8]) -> io::Result<()> {
        let end = offset.checked_add(buffer.len() as u64).ok_or_else(|| corrupt("beyond the end"))?;
        if end > inode.size {
            return Err(corrupt("beyond the end"));
        }
        // With inline data the last, partial block stands behind the inode.
        let in_blocks = match inode.layout {
            FLAT_PLAIN => inode.size,
            FLAT_INLINE => inode.size / self.block * self.block,
            _ => return Err(corrupt("data in an unknown layout")),
        };
        if offset < in_blocks {
            let length = buffer.len().min(usize::try_from(in_blocks - offset).unwrap_or(usize::MAX));
            let (head, rest) = buffer.split_at_mut(length);
            self.file.read_exact_at(head, u64::from(inode.value) * self.block + offset)?;
            offset += length as u64;
            buffer = rest;
        }
        if buffer.is_empty() {
            return Ok(());
        }
        let tail = inode.offset + inode.header + inode.xattr_size;
        self.file.read_exact_at(buffer, tail + (offset - in_blocks))
    }

    /// Where a symbolic link points.
    pub(crate) fn target(&self, inode: &Inode) -> io::Result<Vec<u8>> {
        if inode.size > super::limits::MAX_PATH as u64 {
            return Err(corrupt("a link's target is too long"));
        }
        let mut target = vec![0; usize::try_from(inode.size).map_err(|_| corrupt("too long"))?];
        self.read_at(inode, 0, &mut target)?;
        Ok(target)
    }

    /// Finds a name in a directory, whose blocks are sorted, each within and among each other.
    pub(crate) fn lookup(&self, directory: &Inode, name: &[u8]) -> io::Result<Option<Inode>> {
        let (mut low, mut high) = (0, directory.size.div_ceil(self.block));
        while low < high {
            let middle = low + (high - low) / 2;
            let start = middle * self.block;
            let length = self.block.min(directory.size - start);
            let mut raw = vec![0; usize::try_from(length).map_err(|_| corrupt("too long"))?];
            self.read_at(directory, start, &mut raw)?;
            match search(&raw, name)? {
                Found::At(number) => return self.inode(number).map(Some),
                Found::Before => high = middle,
                Found::After => low = middle + 1,
                Found::Nowhere => return Ok(None),
            }
        }
        Ok(None)
    }

    /// All extended attributes.
    pub(crate) fn xattrs(&self, inode: &Inode) -> io::Result<Vec<Xattr>> {
        if inode.xattr_size == 0 {
            return Ok(Vec::new());
        }
        let mut raw = vec![0; usize::try_from(inode.xattr_size).map_err(|_| corrupt("too long"))?];
        self.file.read_exact_at(&mut raw, inode.offset + inode.header)?;
        let shared = usize::from(raw[4]);
        let mut found = Vec::new();
        for index in 0..shared {
            let offset = self.xattrs + u64::from(u32_at(&raw, 12 + index * 4)?) * 4;
            let mut head = [0; 4];
            self.file.read_exact_at(&mut head, offset)?;
            let mut entry = vec![0; 4 + usize::from(head[0]) + usize::from(u16_at(&head, 2)?)];
            self.file.read_exact_at(&mut entry, offset)?;
            found.push(xattr(&entry)?.0);
        }
        let mut rest = raw.get(12 + shared * 4..).ok_or_else(|| corrupt("cut off"))?;
        // Four zeros: the area is padded where the last entry ends before it.
        while rest.len() >= 4 && rest[..4] != [0; 4] {
            let (entry, length) = xattr(rest)?;
            found.push(entry);
            rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        }
        Ok(found)
    }

    /// Whether a directory hides what lies below it.
    pub(crate) fn is_opaque(&self, directory: &Inode) -> io::Result<bool> {
        Ok(self.xattrs(directory)?.iter().any(|(name, _)| name == OPAQUE))
    }
}

/// For the fuzz targets: everything that is ever read of a file.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) fn fuzz_walk(path: &Path) -> io::Result<()> {
    let erofs = Erofs::read_superblock(path)?;
    let root = erofs.root()?;
    erofs.is_opaque(&root)?;
    for name in [b"d".as_slice(), b"f", b"l", b"zz"] {
        let Some(inode) = erofs.lookup(&root, name)? else { continue };
        erofs.xattrs(&inode)?;
        if inode.is_symlink() {
            erofs.target(&inode)?;
        } else if inode.is_directory() {
            erofs.lookup(&inode, b"f17")?;
        } else if inode.is_file() {
            let length = usize::try_from(inode.size.min(8192)).unwrap_or_default();
            erofs.read_at(&inode, inode.size - length as u64, &mut vec![0; length])?;
        }
    }
    Ok(())
}

/// An entry, and its length without padding.
fn xattr(raw: &[u8]) -> io::Result<(Xattr, usize)> {
    let [length, prefix] = bytes::<2>(raw, 0)?;
    let (name_end, value) = (4 + usize::from(length), usize::from(u16_at(raw, 2)?));
    let prefix = XATTR_PREFIXES.get(usize::from(prefix)).ok_or_else(|| corrupt("an unknown xattr prefix"))?;
    let name = raw.get(4..name_end).ok_or_else(|| corrupt("cut off"))?;
    let value = raw.get(name_end..name_end + value).ok_or_else(|| corrupt("cut off"))?;
    Ok((([prefix, name].concat(), value.to_vec()), name_end + value.len()))
}

/// Where a name is, seen from one block of a directory.
enum Found {
    At(u64),
    Before,
    After,
    Nowhere,
}

fn search(block: &[u8], name: &[u8]) -> io::Result<Found> {
    let first = usize::from(u16_at(block, 8)?);
    if first == 0 || first % DIRENT != 0 || first > block.len() {
        return Err(corrupt("a directory block makes no sense"));
    }
    let count = first / DIRENT;
    for index in 0..count {
        let entry = index * DIRENT;
        let start = usize::from(u16_at(block, entry + 8)?);
        let end = if index + 1 < count { u16_at(block, entry + DIRENT + 8)?.into() } else { block.len() };
        let raw = block.get(start..end).ok_or_else(|| corrupt("a name makes no sense"))?;
        let found = raw.split(|byte| *byte == 0).next().unwrap_or_default();
        match name.cmp(found) {
            std::cmp::Ordering::Equal => return Ok(Found::At(u64_at(block, entry)?)),
            std::cmp::Ordering::Less => return Ok(if index == 0 { Found::Before } else { Found::Nowhere }),
            std::cmp::Ordering::Greater => {}
        }
    }
    Ok(Found::After)
}
