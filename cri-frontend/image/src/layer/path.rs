//! Names in a tar stream.

use super::{
    LayerError,
    limits::{MAX_NAME, MAX_PATH},
};

/// The components of a name after Go's `filepath.Clean`, with leading `..` cut off: an entry can't leave its root.
/// Empty means the root itself.
///
/// # Errors
/// A NUL byte, or longer than the kernel's limits.
pub(super) fn components(name: &[u8]) -> Result<Vec<&[u8]>, LayerError> {
    if name.contains(&0) {
        return Err(LayerError::entry(name, "its name holds a NUL byte"));
    }
    if name.len() > MAX_PATH {
        return Err(LayerError::entry(name, format!("its name is longer than {MAX_PATH} bytes")));
    }
    let mut components = Vec::new();
    for component in name.split(|byte| *byte == b'/') {
        match component {
            b"" | b"." => {}
            b".." => {
                components.pop();
            }
            component if component.len() > MAX_NAME => {
                let reason = format!("a part of its name is longer than {MAX_NAME} bytes");
                return Err(LayerError::entry(name, reason));
            }
            component => components.push(component),
        }
    }
    Ok(components)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn joined(name: &[u8]) -> Vec<u8> {
        components(name).unwrap().join(&b'/')
    }

    #[test]
    fn names_are_cleaned_and_stay_below_the_root() {
        for (name, clean) in [
            ("./a/b/", "a/b"),
            ("/etc/passwd", "etc/passwd"),
            ("a//./b/../c", "a/c"),
            ("../../../etc/shadow", "etc/shadow"),
            ("a/../../b", "b"),
            ("./", ""),
            ("..", ""),
        ] {
            assert_eq!(joined(name.as_bytes()), clean.as_bytes(), "{name}");
        }
        assert_eq!(joined(b"\xff/\xfe"), b"\xff/\xfe");
    }

    #[test]
    fn impossible_names_are_refused() {
        assert!(components(b"a\0b").is_err());
        assert!(components(&[b'x'; 256]).is_err());
        assert!(components(&[b'x'; 255]).is_ok());
        assert!(components(&b"x/".repeat(2100)).is_err());
    }
}
