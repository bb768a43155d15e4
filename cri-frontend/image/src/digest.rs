//! Content digests. Only sha256: it is what images in the field use.

use std::{fmt, io, str::FromStr};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// `sha256:` and 64 lower-case hexadecimal digits.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest {
    hex: String,
}

/// A text that is no digest, or one of another algorithm.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is no sha256 digest (sha256:<64 hexadecimal digits>)")]
pub struct BadDigest(String);

impl Digest {
    /// The digest of some bytes.
    pub(crate) fn of(bytes: &[u8]) -> Self {
        Self::from_hash(Sha256::digest(bytes).as_ref())
    }

    /// The digest of all that a reader gives, and how much that is.
    pub(crate) fn of_reader(mut reader: impl io::Read) -> io::Result<(Self, u64)> {
        let mut hash = Sha256::new();
        let mut buffer = vec![0; 256 << 10];
        let mut bytes = 0;
        loop {
            match reader.read(&mut buffer) {
                Ok(0) => return Ok((Self::from_hash(hash.finalize().as_ref()), bytes)),
                Ok(read) => {
                    hash.update(&buffer[..read]);
                    bytes += read as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// From a finished hash.
    pub(crate) fn from_hash(hash: &[u8]) -> Self {
        Self { hex: hash.iter().map(|byte| format!("{byte:02x}")).collect() }
    }

    /// From 64 hexadecimal digits.
    pub(crate) fn from_hex(hex: &str) -> Option<Self> {
        let valid = hex.len() == 64 && hex.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        valid.then(|| Self { hex: hex.to_owned() })
    }

    /// The digits alone: a file name.
    pub(crate) fn hex(&self) -> &str {
        &self.hex
    }

    /// The chain id of a layer with this diff id above a chain.
    pub(crate) fn chained_on(&self, below: Option<&Self>) -> Self {
        below.map_or_else(|| self.clone(), |below| Self::of(format!("{below} {self}").as_bytes()))
    }
}

impl FromStr for Digest {
    type Err = BadDigest;

    fn from_str(text: &str) -> Result<Self, BadDigest> {
        text.strip_prefix("sha256:").and_then(Self::from_hex).ok_or_else(|| BadDigest(shorten(text)))
    }
}

/// What others send may be long.
fn shorten(text: &str) -> String {
    text.chars().take(100).collect()
}

impl TryFrom<String> for Digest {
    type Error = BadDigest;

    fn try_from(text: String) -> Result<Self, BadDigest> {
        text.parse()
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        digest.to_string()
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "sha256:{}", self.hex)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_canonical_sha256_is_a_digest() {
        let hex = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        let digest: Digest = format!("sha256:{hex}").parse().unwrap();
        assert_eq!(digest, Digest::of(b""));
        assert_eq!(Digest::of_reader(&b"abc"[..]).unwrap(), (Digest::of(b"abc"), 3));
        assert_eq!(digest.hex(), hex);
        let upper = format!("sha256:{}", hex.to_uppercase());
        for bad in ["", "sha256:", "sha256:../../etc/passwd", hex, "sha512:00", upper.as_str()] {
            assert!(bad.parse::<Digest>().is_err(), "{bad}");
        }
    }

    #[test]
    fn the_lowest_layer_is_its_own_chain() {
        let (a, b) = (Digest::of(b"a"), Digest::of(b"b"));
        assert_eq!(a.chained_on(None), a);
        assert_eq!(b.chained_on(Some(&a)), Digest::of(format!("{a} {b}").as_bytes()));
    }
}
