//! New ids: 64 hexadecimal digits, as other runtimes have them.

use std::fmt::Write;

use crate::error::Error;

/// A new id that nobody has.
pub fn new_id() -> Result<String, Error> {
    let mut bytes = [0u8; 32];
    getrandom::fill(&mut bytes).map_err(|error| Error::NoRandom(error.to_string()))?;
    let mut id = String::with_capacity(64);
    for byte in bytes {
        // Writing to a String cannot fail.
        let _ = write!(id, "{byte:02x}");
    }
    Ok(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_valid_and_differ() {
        let (one, other) = (new_id().unwrap(), new_id().unwrap());
        assert_eq!(one.len(), 64);
        assert_ne!(one, other);
        assert!(one.parse::<a3s_box_proto::ids::SandboxId>().is_ok());
    }
}
