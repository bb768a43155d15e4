//! The terminal's sizes, as the client's resize stream tells them: JSON objects one after another.

use serde::Deserialize;
use tokio::io::{AsyncRead, AsyncReadExt};

/// No size takes more.
const LONGEST: usize = 4096;

/// Columns and rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Size {
    /// Columns.
    pub width: u16,
    /// Rows.
    pub height: u16,
}

/// A resize stream being read.
#[derive(Debug)]
pub struct Sizes<R> {
    stream: R,
    unread: Vec<u8>,
}

impl<R: AsyncRead + Unpin> Sizes<R> {
    /// Nothing is read yet.
    pub fn new(stream: R) -> Self {
        Self { stream, unread: Vec::new() }
    }

    /// The next size; none at the stream's end, or after something that is no size. Cancel-safe.
    pub async fn next(&mut self) -> Option<Size> {
        loop {
            let mut values = serde_json::Deserializer::from_slice(&self.unread).into_iter::<Size>();
            match values.next() {
                Some(Ok(size)) => {
                    let used = values.byte_offset();
                    self.unread.drain(..used);
                    return Some(size);
                }
                Some(Err(error)) if !error.is_eof() => return None,
                Some(Err(_)) | None => {}
            }
            if self.unread.len() > LONGEST || self.stream.read_buf(&mut self.unread).await.ok()? == 0 {
                return None;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn sizes_are_read_one_after_another() {
        let text = &br#"{"Width":80,"Height":24}{"Width":132,"Height":50}
{"Width":1,"#[..];
        let mut sizes = Sizes::new(text);
        assert_eq!(sizes.next().await, Some(Size { width: 80, height: 24 }));
        assert_eq!(sizes.next().await, Some(Size { width: 132, height: 50 }));
        assert_eq!(sizes.next().await, None);
        assert_eq!(Sizes::new(&b"{\"Width\":70000,\"Height\":1}"[..]).next().await, None);
        assert_eq!(Sizes::new(&b"garbage"[..]).next().await, None);
        assert_eq!(Sizes::new(&[b' '; 100_000][..]).next().await, None);
    }
}
