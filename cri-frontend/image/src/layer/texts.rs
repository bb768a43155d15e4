//! Many short texts in one piece of memory.

use super::{LayerError, limits::MAX_TEXT};

/// Texts by number.
#[derive(Debug, Default)]
pub(super) struct Texts {
    bytes: Vec<u8>,
    ends: Vec<u32>,
}

impl Texts {
    /// Keeps a text.
    ///
    /// # Errors
    /// There are too many, called `what` in the message.
    pub(super) fn push(&mut self, text: &[u8], what: &'static str) -> Result<u32, LayerError> {
        let full = || LayerError::Limit { what, limit: MAX_TEXT as u64, key: "fixed" };
        let end = self.bytes.len() + text.len();
        if end > MAX_TEXT {
            return Err(full());
        }
        let index = u32::try_from(self.ends.len()).map_err(|_| full())?;
        self.ends.push(u32::try_from(end).map_err(|_| full())?);
        self.bytes.extend_from_slice(text);
        Ok(index)
    }

    /// A text that is kept; an unknown one is empty.
    pub(super) fn get(&self, index: u32) -> &[u8] {
        let index = index as usize;
        let start = index.checked_sub(1).and_then(|before| self.ends.get(before)).copied().unwrap_or(0);
        let end = self.ends.get(index).copied().unwrap_or(0);
        self.bytes.get(start as usize..end as usize).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_found_again_and_have_a_bound() {
        let mut texts = Texts::default();
        for (index, text) in ["a", "", "bcd"].iter().enumerate() {
            assert_eq!(texts.push(text.as_bytes(), "texts").unwrap(), index as u32);
        }
        assert_eq!([0, 1, 2, 3].map(|index| texts.get(index)), [b"a".as_slice(), b"", b"bcd", b""]);
        assert!(
            texts.push(&vec![0; MAX_TEXT - 3], "texts").unwrap_err().to_string().starts_with("texts exceed")
        );
        texts.push(&vec![0; MAX_TEXT - 4], "texts").unwrap();
    }
}
