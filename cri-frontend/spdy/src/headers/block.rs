//! A header block before compression (draft 3.1, section 2.6.10): a count, then each name and its values with
//! their lengths, all of 32 bits; a NUL parts the values of one name.

use bytes::{Buf, BufMut};

use super::Headers;

/// Why a decompressed header block is not usable. The session goes on: only this block's stream is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BlockError {
    /// It ends within a name or value, or goes on behind the last one.
    #[error("the header block's lengths do not fit its size")]
    Length,
    /// There are more values than the configuration takes.
    #[error("the header block has more than {0} values")]
    TooMany(usize),
    /// A name is empty, or has other than printable ASCII without upper-case letters.
    #[error("the header block has a name that is not lower-case ASCII")]
    Name,
    /// A name comes twice.
    #[error("the header block has a name twice")]
    Duplicate,
    /// A value is not text.
    #[error("the header block has a value that is not UTF-8")]
    Value,
}

impl Headers {
    /// Reads a decompressed block of at most `max` values.
    ///
    /// # Errors
    /// See [`BlockError`].
    pub fn parse(mut block: &[u8], max: usize) -> Result<Self, BlockError> {
        let names = block.try_get_u32().map_err(|_| BlockError::Length)?;
        if names as usize > max {
            return Err(BlockError::TooMany(max));
        }
        let mut headers = Self { fields: Vec::with_capacity(names as usize) };
        let mut left = max;
        for _ in 0..names {
            let name = name(text(&mut block)?)?;
            if headers.fields.iter().any(|(other, _)| *other == name) {
                return Err(BlockError::Duplicate);
            }
            let values = std::str::from_utf8(text(&mut block)?).map_err(|_| BlockError::Value)?;
            let values: Vec<String> = values.split('\0').take(left + 1).map(str::to_owned).collect();
            left = left.checked_sub(values.len()).ok_or(BlockError::TooMany(max))?;
            headers.fields.push((name, values));
        }
        if block.has_remaining() { Err(BlockError::Length) } else { Ok(headers) }
    }

    /// The block of these headers, before compression.
    #[must_use]
    pub fn to_block(&self) -> Vec<u8> {
        let mut block = Vec::new();
        block.put_uint(self.fields.len() as u64, 4);
        for (name, values) in &self.fields {
            for text in [name, &values.join("\0")] {
                block.put_uint(text.len() as u64, 4);
                block.put_slice(text.as_bytes());
            }
        }
        block
    }
}

/// Cuts a length and as many bytes.
fn text<'a>(block: &mut &'a [u8]) -> Result<&'a [u8], BlockError> {
    let length = block.try_get_u32().map_err(|_| BlockError::Length)? as usize;
    let (text, rest) = block.split_at_checked(length).ok_or(BlockError::Length)?;
    *block = rest;
    Ok(text)
}

fn name(bytes: &[u8]) -> Result<String, BlockError> {
    let valid = |byte: &u8| byte.is_ascii_graphic() && !byte.is_ascii_uppercase();
    if bytes.is_empty() || !bytes.iter().all(valid) {
        return Err(BlockError::Name);
    }
    String::from_utf8(bytes.to_vec()).map_err(|_| BlockError::Name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_values_come_back_as_they_were() {
        let headers: Headers =
            [("streamType", "error"), ("port", "80"), ("empty", ""), ("port", "81")].into_iter().collect();
        let parsed = Headers::parse(&headers.to_block(), 4).unwrap();
        assert_eq!(parsed, headers);
        assert_eq!(parsed.get("streamtype"), Some("error"));
        assert_eq!(parsed.all("port").collect::<Vec<_>>(), ["80", "81"]);
        assert_eq!(parsed.get("empty"), Some(""));
        assert_eq!(parsed.get("absent"), None);
        assert_eq!(Headers::parse(&headers.to_block(), 3), Err(BlockError::TooMany(3)));
        assert_eq!(Headers::parse(&Headers::new().to_block(), 0), Ok(Headers::new()));
    }

    /// A block of one field, with these lengths in front of its name and value.
    fn block(count: u32, name: (u32, &[u8]), value: (u32, &[u8])) -> Vec<u8> {
        let mut block = count.to_be_bytes().to_vec();
        for (length, text) in [name, value] {
            block.put_u32(length);
            block.put_slice(text);
        }
        block
    }

    #[test]
    fn refuses_malformed_blocks() {
        let table = [
            ("no count", vec![0, 0, 0], BlockError::Length),
            ("a count of 2³²−1", vec![255; 4], BlockError::TooMany(8)),
            ("a count beyond the fields", block(2, (1, b"a"), (1, b"b")), BlockError::Length),
            ("a name of 2³²−1 bytes", block(1, (u32::MAX, b"a"), (1, b"b")), BlockError::Length),
            ("a value beyond the block", block(1, (1, b"a"), (2, b"b")), BlockError::Length),
            ("bytes behind the last field", block(0, (1, b"a"), (1, b"b")), BlockError::Length),
            ("no name", block(1, (0, b""), (1, b"b")), BlockError::Name),
            ("an upper-case name", block(1, (1, b"A"), (1, b"b")), BlockError::Name),
            ("a name with a space", block(1, (3, b"a b"), (1, b"b")), BlockError::Name),
            ("a name beyond ASCII", block(1, (2, "ä".as_bytes()), (1, b"b")), BlockError::Name),
            ("a value of no text", block(1, (1, b"a"), (1, b"\xff")), BlockError::Value),
            ("values without end", block(1, (1, b"a"), (64, &[0; 64])), BlockError::TooMany(8)),
            (
                "a name twice",
                [
                    &2u32.to_be_bytes()[..],
                    &block(0, (1, b"a"), (1, b"b"))[4..],
                    &block(0, (1, b"a"), (0, b""))[4..],
                ]
                .concat(),
                BlockError::Duplicate,
            ),
        ];
        for (what, block, error) in table {
            assert_eq!(Headers::parse(&block, 8), Err(error), "{what}");
        }
    }
}
