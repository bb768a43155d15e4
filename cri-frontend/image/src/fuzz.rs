//! What the fuzz targets in `fuzz/` call: our own parsers of what a registry sends, each with what must hold of any
//! input. The tests run the same over the targets' corpus.

use std::{
    ffi::OsStr,
    io::Write,
    os::unix::ffi::OsStrExt,
    path::{Component, Path},
};

use crate::{layer, layer::erofs, pull, reference::Reference, registry};

/// A few MiB of output are enough to find what is wrong.
const MAX_UNPACKED: u64 = 4 << 20;

/// A name of an image: its normal form is its own normal form.
///
/// # Panics
/// That is not so.
pub fn reference(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(name) = Reference::parse(text) {
        let normal = name.to_string();
        assert!(Reference::parse(&normal).is_ok_and(|again| again == name), "{text:?} became {normal:?}");
        assert!(!normal.contains("..") && !normal.contains("//"), "{normal:?}");
    }
}

/// A `WWW-Authenticate` header.
pub fn challenge(data: &[u8]) {
    if let Ok(text) = std::str::from_utf8(data) {
        registry::fuzz_challenge(text);
    }
}

/// A registry's answer that is no document: an error's body, or a header.
///
/// # Panics
/// It could send us to another scheme than HTTP, or from HTTPS to HTTP, or keep us waiting for long.
pub fn answer(data: &[u8]) {
    registry::fuzz_answer(data);
}

/// A `hosts.toml`.
pub fn hosts_file(data: &[u8]) {
    if let Ok(text) = std::str::from_utf8(data) {
        registry::fuzz_hosts_file(text);
    }
}

/// A manifest or index: its first line is the content type.
pub fn manifest(data: &[u8]) {
    let end = data.iter().position(|byte| *byte == b'\n').unwrap_or(0);
    let (kind, body) = data.split_at(end);
    pull::fuzz_manifest(body, &String::from_utf8_lossy(kind));
}

#[expect(clippy::panic, reason = "how a fuzz target says what it found")]
/// An uncompressed layer, above the one of the corpus: what goes to the converter is a tar stream of canonical names.
///
/// # Panics
/// It is not, or the layer below cannot be read.
pub fn layer(data: &[u8]) {
    let below = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/erofs/small-blocks");
    let mut out = Vec::new();
    match layer::fuzz_normalise(data, &mut out, MAX_UNPACKED, &below) {
        Err(error @ layer::LayerError::Stored { .. }) => panic!("{error}"),
        Err(_) => return,
        Ok(_) => {}
    }
    let mut archive = tar::Archive::new(out.as_slice());
    let entries = archive.entries();
    assert!(entries.is_ok(), "no tar stream");
    for entry in entries.into_iter().flatten() {
        let Ok(entry) = entry else { panic!("an entry is cut off") };
        let bytes = entry.path_bytes();
        let path = Path::new(OsStr::from_bytes(&bytes));
        let canonical = path.components().all(|part| matches!(part, Component::Normal(_)));
        assert!(canonical || path == Path::new("."), "{path:?}");
    }
}

/// An EROFS file, which the converter wrote after it read what a registry sent.
pub fn erofs(data: &[u8]) {
    let Ok(mut file) = tempfile::NamedTempFile::new() else { return };
    if file.write_all(data).is_ok() {
        // Whatever is wrong with it is an error.
        let _ = erofs::fuzz_walk(file.path());
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// Changed copies of each file of the corpus.
    const COPIES: u64 = 300;

    /// Marsaglia's xorshift: the same numbers in each run.
    struct Numbers(u64);

    impl Numbers {
        fn below(&mut self, limit: usize) -> usize {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            (self.0 % limit.max(1) as u64) as usize
        }
    }

    fn changed(original: &[u8], numbers: &mut Numbers) -> Vec<u8> {
        let mut data = original.to_vec();
        for _ in 0..=numbers.below(4) {
            let at = numbers.below(data.len());
            match numbers.below(4) {
                0 if !data.is_empty() => data[at] = numbers.below(256) as u8,
                1 if !data.is_empty() => data[at] ^= 1 << numbers.below(8),
                2 => data.truncate(at),
                _ => {
                    let from = numbers.below(original.len());
                    let piece = &original[from..(from + numbers.below(600)).min(original.len())];
                    data.splice(at..at, piece.iter().copied());
                }
            }
        }
        data
    }

    fn run(name: &str, target: fn(&[u8])) {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(name);
        let files: Vec<_> = fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert!(!files.is_empty(), "{directory:?} is empty");
        for file in files {
            let original = fs::read(&file).unwrap();
            target(&original);
            let mut numbers = Numbers(0x9e37_79b9_7f4a_7c15 ^ original.len() as u64);
            for _ in 0..COPIES {
                target(&changed(&original, &mut numbers));
            }
        }
    }

    #[test]
    fn nothing_that_is_parsed_panics() {
        run("reference", reference);
        run("challenge", challenge);
        run("answer", answer);
        run("hosts_file", hosts_file);
        run("manifest", manifest);
        run("layer", layer);
        run("erofs", erofs);
    }
}
