//! Sparse files in GNU's PAX forms 0.0, 0.1 and 1.0; the old GNU form is the `tar` crate's to read.

use std::io::{self, Read};

use super::{LayerError, limits::MAX_HEADER};

const PREFIX: &[u8] = b"GNU.sparse.";

/// The records that describe a sparse file.
#[derive(Debug, Default)]
pub(super) struct SparseRecords {
    /// The real name, where the header's is made up.
    pub name: Option<Vec<u8>>,
    major: Option<u64>,
    minor: Option<u64>,
    size: Option<u64>,
    map: Vec<u64>,
}

impl SparseRecords {
    /// Takes in a record if it is one of these.
    pub(super) fn read(&mut self, key: &[u8], value: &[u8], entry: &[u8]) -> Result<(), LayerError> {
        let Some(key) = key.strip_prefix(PREFIX) else { return Ok(()) };
        let number = || number(value).ok_or_else(|| bad(entry));
        match key {
            b"name" => self.name = Some(value.to_vec()),
            b"major" => self.major = Some(number()?),
            b"minor" => self.minor = Some(number()?),
            b"size" | b"realsize" => self.size = Some(number()?),
            b"offset" | b"numbytes" => self.map.push(number()?),
            b"map" => {
                let numbers: Option<Vec<u64>> = value.split(|byte| *byte == b',').map(self::number).collect();
                self.map = numbers.ok_or_else(|| bad(entry))?;
            }
            _ => {}
        }
        Ok(())
    }

    /// The map of the old GNU form, which stands in the header.
    pub(super) fn from_header(map: Vec<u64>, size: u64) -> Self {
        Self { map, size: Some(size), ..Self::default() }
    }

    /// The file as a whole: its size, and a reader that fills the holes. Nothing if the file is not sparse.
    pub(super) fn open<'a>(
        mut self,
        data: &'a mut dyn Read,
        entry: &[u8],
    ) -> Result<Option<(u64, SparseReader<'a>)>, LayerError> {
        match (self.major, self.minor) {
            (Some(1), Some(0)) => self.map = leading_map(data, entry)?,
            (None | Some(0), None | Some(0 | 1)) if self.map.is_empty() => return Ok(None),
            (None | Some(0), None | Some(0 | 1)) => {}
            _ => return Err(LayerError::entry(entry, "its form of sparse file is unknown")),
        }
        let size = self.size.ok_or_else(|| bad(entry))?;
        let pieces = pieces(&self.map, size).ok_or_else(|| bad(entry))?;
        Ok(Some((size, SparseReader { data, pieces: pieces.into_iter(), piece: None })))
    }
}

fn bad(entry: &[u8]) -> LayerError {
    LayerError::entry(entry, "its map of a sparse file makes no sense")
}

fn number(text: &[u8]) -> Option<u64> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// Form 1.0: the map stands before the data, a number a line, padded to a block.
fn leading_map(data: &mut dyn Read, entry: &[u8]) -> Result<Vec<u64>, LayerError> {
    let (mut map, mut line, mut wanted, mut seen) = (Vec::new(), Vec::new(), None, 0);
    let mut block = [0; 512];
    while wanted.is_none_or(|count| map.len() as u64 != count) {
        seen += block.len() as u64;
        if seen > MAX_HEADER {
            return Err(LayerError::entry(entry, "its map of a sparse file is too large"));
        }
        data.read_exact(&mut block).map_err(LayerError::from_read)?;
        for byte in block {
            if byte != b'\n' {
                line.push(byte);
                continue;
            }
            let value = number(&line).ok_or_else(|| bad(entry))?;
            line.clear();
            match wanted {
                None => wanted = Some(value.checked_mul(2).ok_or_else(|| bad(entry))?),
                Some(_) => map.push(value),
            }
            if wanted == Some(map.len() as u64) {
                break;
            }
        }
    }
    Ok(map)
}

/// A stretch of the file: how long, and whether it is data.
type Piece = (u64, bool);

fn pieces(map: &[u64], size: u64) -> Option<Vec<Piece>> {
    let (mut pieces, mut position) = (Vec::new(), 0_u64);
    for pair in map.chunks(2) {
        let [offset, length] = *pair else { return None };
        let end = offset.checked_add(length)?;
        if offset < position || end > size {
            return None;
        }
        pieces.extend([(offset - position, false), (length, true)]);
        position = end;
    }
    pieces.push((size - position, false));
    Some(pieces)
}

/// Data and holes in order.
pub(super) struct SparseReader<'a> {
    data: &'a mut dyn Read,
    pieces: std::vec::IntoIter<Piece>,
    piece: Option<Piece>,
}

impl Read for SparseReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let Some((left, is_data)) = self.piece.filter(|(left, _)| *left > 0) else {
                self.piece = self.pieces.next();
                if self.piece.is_none() {
                    return Ok(0);
                }
                continue;
            };
            let length = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            let piece = &mut buffer[..length];
            let read = if is_data {
                match self.data.read(piece)? {
                    0 if length > 0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                    read => read,
                }
            } else {
                piece.fill(0);
                length
            };
            self.piece = Some((left - read as u64, is_data));
            return Ok(read);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(records: &[(&str, &str)], mut data: &[u8]) -> Result<Option<Vec<u8>>, LayerError> {
        let mut sparse = SparseRecords::default();
        for (key, value) in records {
            sparse.read(format!("GNU.sparse.{key}").as_bytes(), value.as_bytes(), b"f")?;
        }
        let Some((size, mut reader)) = sparse.open(&mut data, b"f")? else { return Ok(None) };
        let mut whole = Vec::new();
        reader.read_to_end(&mut whole).map_err(LayerError::from_read)?;
        assert_eq!(whole.len() as u64, size);
        Ok(Some(whole))
    }

    #[test]
    fn all_three_forms_say_the_same() {
        let whole = b"\0\0abc\0\0de\0".to_vec();
        let old = [("size", "10"), ("offset", "2"), ("numbytes", "3"), ("offset", "7"), ("numbytes", "2")];
        assert_eq!(read(&old, b"abcde").unwrap().unwrap(), whole);
        assert_eq!(read(&[("size", "10"), ("map", "2,3,7,2")], b"abcde").unwrap().unwrap(), whole);
        let mut data = b"2\n2\n3\n7\n2\n".to_vec();
        data.resize(512, 0);
        data.extend(b"abcde");
        let new = [("major", "1"), ("minor", "0"), ("realsize", "10")];
        assert_eq!(read(&new, &data).unwrap().unwrap(), whole);
        assert_eq!(read(&[], b"abc").unwrap(), None);
    }

    #[test]
    fn impossible_maps_are_refused() {
        for map in ["2,3,1,1", "0,11", "1", "18446744073709551615,2", "a,b"] {
            assert!(read(&[("size", "10"), ("map", map)], b"").is_err(), "{map}");
        }
        assert!(read(&[("size", "10"), ("map", "0,5")], b"abc").is_err());
        assert!(read(&[("major", "2"), ("minor", "0")], b"").is_err());
    }
}
