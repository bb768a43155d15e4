//! Ids of sandboxes, containers and execs: checked once at the edge, never a path or an option afterwards.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// The longest id accepted, in bytes: ours are 64 hexadecimal digits; containerd's users may choose up to 76.
pub const MAX_ID_LENGTH: usize = 76;

/// Why a string is no id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidId {
    /// Empty.
    #[error("an id must not be empty")]
    Empty,
    /// Longer than [`MAX_ID_LENGTH`].
    #[error("an id has at most {MAX_ID_LENGTH} characters, this one has {0}")]
    TooLong(usize),
    /// Something that could be read as a path, an option or a control sequence.
    #[error("{0:?} is no id: letters, digits, '-', '_' and '.', beginning with a letter or digit")]
    Malformed(String),
}

fn check(id: &str) -> Result<(), InvalidId> {
    if id.is_empty() {
        return Err(InvalidId::Empty);
    }
    if id.len() > MAX_ID_LENGTH {
        return Err(InvalidId::TooLong(id.len()));
    }
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if !id.starts_with(|c: char| c.is_ascii_alphanumeric()) || !id.chars().all(allowed) {
        return Err(InvalidId::Malformed(id.to_owned()));
    }
    Ok(())
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// The id as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidId;
            fn try_from(id: String) -> Result<Self, InvalidId> {
                check(&id)?;
                Ok(Self(id))
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;
            fn from_str(id: &str) -> Result<Self, InvalidId> {
                Self::try_from(id.to_owned())
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> String {
                id.0
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

id! {
    /// A pod sandbox: one MicroVM.
    SandboxId
}
id! {
    /// A container of a pod.
    ContainerId
}
id! {
    /// A process run in a container besides its own.
    ExecId
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_never_a_path_or_an_option() {
        for bad in ["", "../x", "a/b", "-rf", ".hidden", "a b", "a\0", "a\n", &"x".repeat(77)] {
            assert!(bad.parse::<SandboxId>().is_err(), "{bad:?} was accepted");
        }
        for good in ["a", "0f3e", "web-1.2_3", &"f".repeat(64)] {
            assert_eq!(good.parse::<ContainerId>().unwrap().as_str(), good);
        }
    }
}
