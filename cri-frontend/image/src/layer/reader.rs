//! Reads a tar stream: headers with the `tar` crate, extension headers here, because that crate ends a PAX record at
//! the first newline (a file capability may hold one) and keeps headers of any size in memory.

use std::io::{self, Read};

use tar::{EntryType, GnuExtSparseHeader, GnuSparseHeader, Header};

use super::{
    LayerError,
    limits::MAX_HEADER,
    pax::{self, Record},
};

const BLOCK: u64 = 512;

/// One entry, without its data.
pub(super) struct Entry {
    /// The header itself.
    pub header: Header,
    /// Its type.
    pub kind: EntryType,
    /// Its name: from PAX, GNU's long name, or the header.
    pub name: Vec<u8>,
    /// Where a link points.
    pub link: Vec<u8>,
    /// Bytes of data in the stream.
    pub size: u64,
    /// All PAX records.
    pub records: Vec<Record>,
    /// Old GNU sparse files: offsets and lengths by turns, and the real size.
    pub sparse: Option<(Vec<u64>, u64)>,
}

/// A stream of entries.
pub(super) struct TarReader<R> {
    inner: R,
    /// Data of the current entry that was not read, and the padding after it.
    left: u64,
    padding: u64,
}

/// What extension headers say about the entry after them.
#[derive(Default)]
struct Extensions {
    name: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    records: Option<Vec<Record>>,
}

impl<R: Read> TarReader<R> {
    pub(super) fn new(inner: R) -> Self {
        Self { inner, left: 0, padding: 0 }
    }

    /// The next entry, or nothing at the archive's end.
    pub(super) fn next(&mut self) -> Result<Option<Entry>, LayerError> {
        let mut extensions = Extensions::default();
        loop {
            self.skip(self.left.saturating_add(self.padding))?;
            let Some(header) = self.header()? else {
                return if extensions.is_empty() {
                    Ok(None)
                } else {
                    Err(bad("ends after an extension header"))
                };
            };
            let size = header.entry_size().map_err(LayerError::from_read)?;
            match header.entry_type().as_byte() {
                b'x' => once(&mut extensions.records, pax::parse(&self.extension(size)?)?)?,
                b'L' => once(&mut extensions.name, without_nul(self.extension(size)?))?,
                b'K' => once(&mut extensions.link, without_nul(self.extension(size)?))?,
                // Global records mean nothing to containerd either.
                b'g' => drop(self.extension(size)?),
                _ => return self.entry(header, size, extensions).map(Some),
            }
        }
    }

    /// Reads the current entry's data.
    pub(super) fn data(&mut self) -> Data<'_, R> {
        Data(self)
    }

    fn entry(&mut self, header: Header, size: u64, extensions: Extensions) -> Result<Entry, LayerError> {
        let records = extensions.records.unwrap_or_default();
        let size = match pax::find(&records, b"size") {
            Some(value) => pax::number(value).ok_or_else(|| bad("has a PAX size that is no number"))?,
            None => size,
        };
        let from_pax = |key| pax::find(&records, key).map(<[u8]>::to_vec);
        let name = extensions.name.or_else(|| from_pax(b"path"));
        let link = extensions.link.or_else(|| from_pax(b"linkpath"));
        let name = name.unwrap_or_else(|| header.path_bytes().into_owned());
        let kind = kind(&header, &name);
        // As Go's reader: no data follows these, whatever a size says.
        let size = if has_data(kind) { size } else { 0 };
        let sparse = if kind.is_gnu_sparse() { Some(self.sparse_map(&header)?) } else { None };
        self.left = size;
        self.padding = size.wrapping_neg() % BLOCK;
        Ok(Entry {
            name,
            link: link.or_else(|| header.link_name_bytes().map(Into::into)).unwrap_or_default(),
            header,
            kind,
            size,
            records,
            sparse,
        })
    }

    /// The next header; nothing at a block of zeros or at the stream's end between entries.
    fn header(&mut self) -> Result<Option<Header>, LayerError> {
        let mut header = Header::new_old();
        let block = header.as_mut_bytes();
        let mut filled = 0;
        while filled < block.len() {
            match self.inner.read(&mut block[filled..]).map_err(LayerError::from_read)? {
                0 if filled == 0 => return Ok(None),
                0 => return Err(bad("ends within a header")),
                read => filled += read,
            }
        }
        if block.iter().all(|byte| *byte == 0) {
            return Ok(None);
        }
        let (mut unsigned, mut signed) = (0_u32, 0_i32);
        for (index, byte) in block.iter().enumerate() {
            let byte = if (148..156).contains(&index) { b' ' } else { *byte };
            unsigned += u32::from(byte);
            signed += i32::from(byte.cast_signed());
        }
        let sum = header.cksum().map_err(LayerError::from_read)?;
        if sum != unsigned && i64::from(sum) != i64::from(signed) {
            return Err(bad("has a header with a wrong checksum"));
        }
        Ok(Some(header))
    }

    fn extension(&mut self, size: u64) -> Result<Vec<u8>, LayerError> {
        if size > MAX_HEADER {
            return Err(bad("has an extension header that is too large"));
        }
        let mut data = vec![0; usize::try_from(size).map_err(|_| bad("has too large a header"))?];
        self.inner.read_exact(&mut data).map_err(LayerError::from_read)?;
        (self.left, self.padding) = (0, size.wrapping_neg() % BLOCK);
        Ok(data)
    }

    fn skip(&mut self, length: u64) -> Result<(), LayerError> {
        let skipped = io::copy(&mut self.inner.by_ref().take(length), &mut io::sink());
        (self.left, self.padding) = (0, 0);
        match skipped.map_err(LayerError::from_read)? {
            skipped if skipped == length => Ok(()),
            _ => Err(bad("ends within an entry")),
        }
    }

    fn sparse_map(&mut self, header: &Header) -> Result<(Vec<u64>, u64), LayerError> {
        let gnu = header.as_gnu().ok_or_else(|| bad("has a sparse file in a header that is not GNU's"))?;
        let mut map = Vec::new();
        push_pieces(&mut map, &gnu.sparse)?;
        let mut more = gnu.is_extended();
        while more {
            if map.len() as u64 * BLOCK > MAX_HEADER {
                return Err(bad("has too large a map of a sparse file"));
            }
            let mut extended = GnuExtSparseHeader::new();
            self.inner.read_exact(extended.as_mut_bytes()).map_err(LayerError::from_read)?;
            push_pieces(&mut map, extended.sparse())?;
            more = extended.is_extended();
        }
        Ok((map, gnu.real_size().map_err(LayerError::from_read)?))
    }
}

fn push_pieces(map: &mut Vec<u64>, pieces: &[GnuSparseHeader]) -> Result<(), LayerError> {
    for piece in pieces.iter().filter(|piece| !piece.is_empty()) {
        map.push(piece.offset().map_err(LayerError::from_read)?);
        map.push(piece.length().map_err(LayerError::from_read)?);
    }
    Ok(())
}

/// The type, with tar's oldest form of a directory told by its slash.
fn kind(header: &Header, name: &[u8]) -> EntryType {
    let old_directory = header.as_old().linkflag[0] == 0 && name.ends_with(b"/");
    if old_directory { EntryType::Directory } else { header.entry_type() }
}

fn has_data(kind: EntryType) -> bool {
    !matches!(
        kind,
        EntryType::Directory
            | EntryType::Link
            | EntryType::Symlink
            | EntryType::Char
            | EntryType::Block
            | EntryType::Fifo
    )
}

impl Extensions {
    fn is_empty(&self) -> bool {
        self.name.is_none() && self.link.is_none() && self.records.is_none()
    }
}

fn once<T>(slot: &mut Option<T>, value: T) -> Result<(), LayerError> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(bad("has two extension headers of one kind before one entry")),
    }
}

fn without_nul(mut text: Vec<u8>) -> Vec<u8> {
    if let Some(end) = text.iter().position(|byte| *byte == 0) {
        text.truncate(end);
    }
    text
}

fn bad(what: &'static str) -> LayerError {
    LayerError::Read(io::Error::new(io::ErrorKind::InvalidData, format!("the tar stream {what}")))
}

/// The current entry's data.
pub(super) struct Data<'a, R>(&'a mut TarReader<R>);

impl<R: Read> Read for Data<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = buffer.len().min(usize::try_from(self.0.left).unwrap_or(usize::MAX));
        let read = self.0.inner.read(&mut buffer[..length])?;
        self.0.left -= read as u64;
        Ok(read)
    }
}
