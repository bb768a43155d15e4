//! Writes the tar stream that `mkfs.erofs` reads: one plain form for each thing, within what its parser gets right.

use std::io::{self, Read, Write};

use tar::{EntryType, Header};

use super::attributes::Attributes;

/// Numbers up to these fit a ustar header.
const MAX_ID: u32 = 0o7_777_777;
const MAX_SIZE: u64 = 0o77_777_777_777;
const MAX_NAME: usize = 100;
const BLOCK: usize = 512;

/// What an entry is.
#[derive(Debug, Clone, Copy)]
pub(super) enum Body<'a> {
    /// A file of so many bytes, which must follow.
    File(u64),
    Directory,
    Symlink(&'a [u8]),
    /// To a canonical path that was written before.
    Hardlink(&'a [u8]),
    Character(u32, u32),
    Block(u32, u32),
    Fifo,
}

/// The stream to the converter.
pub(super) struct Emitter<W> {
    out: W,
}

impl<W: Write> Emitter<W> {
    pub(super) fn new(out: W) -> Self {
        Self { out }
    }

    /// Writes an entry without data.
    pub(super) fn entry(&mut self, path: &[u8], attributes: &Attributes, body: Body<'_>) -> io::Result<()> {
        let (kind, size, link, device) = match body {
            Body::File(size) => (EntryType::Regular, size, None, None),
            Body::Directory => (EntryType::Directory, 0, None, None),
            Body::Symlink(target) => (EntryType::Symlink, 0, Some(target), None),
            Body::Hardlink(target) => (EntryType::Link, 0, Some(target), None),
            Body::Character(major, minor) => (EntryType::Char, 0, None, Some((major, minor))),
            Body::Block(major, minor) => (EntryType::Block, 0, None, Some((major, minor))),
            Body::Fifo => (EntryType::Fifo, 0, None, None),
        };
        let records = records(path, link, size, attributes);
        if !records.is_empty() {
            let mut header = header(b"pax", &Attributes::default(), EntryType::XHeader);
            header.set_size(records.len() as u64);
            header.set_cksum();
            self.out.write_all(header.as_bytes())?;
            self.out.write_all(&records)?;
            self.pad(records.len() as u64)?;
        }
        let mut header = header(path, attributes, kind);
        header.set_size(if size > MAX_SIZE { 0 } else { size });
        if let Some(link) = link {
            fill(&mut header.as_old_mut().linkname, link);
        }
        if let Some((major, minor)) = device {
            header.set_device_major(major)?;
            header.set_device_minor(minor)?;
        }
        header.set_cksum();
        self.out.write_all(header.as_bytes())
    }

    /// Writes a file with its data.
    ///
    /// # Errors
    /// The data ends before `size` bytes.
    pub(super) fn file(
        &mut self,
        path: &[u8],
        attributes: &Attributes,
        size: u64,
        data: &mut dyn Read,
    ) -> io::Result<()> {
        self.entry(path, attributes, Body::File(size))?;
        let copied = io::copy(&mut data.take(size), &mut self.out)?;
        if copied < size {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.pad(size)
    }

    /// Ends the stream.
    pub(super) fn finish(mut self) -> io::Result<()> {
        self.out.write_all(&[0; 2 * BLOCK])?;
        self.out.flush()
    }

    fn pad(&mut self, size: u64) -> io::Result<()> {
        let over = (size % BLOCK as u64) as usize;
        if over > 0 {
            self.out.write_all(&[0; BLOCK][over..])?;
        }
        Ok(())
    }
}

fn header(path: &[u8], attributes: &Attributes, kind: EntryType) -> Header {
    let mut header = Header::new_ustar();
    fill(&mut header.as_old_mut().name, path);
    header.set_entry_type(kind);
    header.set_mode(attributes.mode);
    header.set_uid(attributes.uid.min(MAX_ID).into());
    header.set_gid(attributes.gid.min(MAX_ID).into());
    header.set_mtime(attributes.mtime.min(MAX_SIZE));
    header
}

fn fill(field: &mut [u8], value: &[u8]) {
    let length = value.len().min(field.len());
    field[..length].copy_from_slice(&value[..length]);
}

/// PAX records for what a ustar header cannot say.
fn records(path: &[u8], link: Option<&[u8]>, size: u64, attributes: &Attributes) -> Vec<u8> {
    let mut records = Vec::new();
    if path.len() > MAX_NAME {
        record(&mut records, b"path", path);
    }
    if let Some(link) = link.filter(|link| link.len() > MAX_NAME) {
        record(&mut records, b"linkpath", link);
    }
    if size > MAX_SIZE {
        record(&mut records, b"size", size.to_string().as_bytes());
    }
    if attributes.uid > MAX_ID {
        record(&mut records, b"uid", attributes.uid.to_string().as_bytes());
    }
    if attributes.gid > MAX_ID {
        record(&mut records, b"gid", attributes.gid.to_string().as_bytes());
    }
    if attributes.nanoseconds != 0 || attributes.mtime > MAX_SIZE {
        // All nine digits: mkfs.erofs takes the fraction for a plain number of nanoseconds.
        let time = format!("{}.{:09}", attributes.mtime, attributes.nanoseconds);
        record(&mut records, b"mtime", time.as_bytes());
    }
    for (name, value) in &attributes.xattrs {
        record(&mut records, &[b"SCHILY.xattr.", name.as_slice()].concat(), value);
    }
    records
}

/// `length key=value\n`, where the length counts itself.
fn record(records: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while rest + length.to_string().len() > length {
        length = rest + length.to_string().len();
    }
    records.extend_from_slice(length.to_string().as_bytes());
    for part in [b" ".as_slice(), key, b"=", value, b"\n"] {
        records.extend_from_slice(part);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_counts_its_own_length() {
        for size in [0, 1, 80, 88, 89, 90, 91, 92, 93, 94, 95, 985, 986, 987, 988, 989, 990, 9990] {
            let mut records = Vec::new();
            record(&mut records, b"path", &vec![b'x'; size]);
            let text = String::from_utf8(records).unwrap();
            let length: usize = text.split(' ').next().unwrap().parse().unwrap();
            assert_eq!(length, text.len(), "{size}");
        }
    }
}
