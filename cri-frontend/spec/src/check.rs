//! Texts from outside: no NUL bytes, no endless ones, no paths that depend on where they are read.

use std::path::{Component, Path, PathBuf};

use crate::error::{SpecError, invalid};

/// The longest path that Linux takes, without its NUL.
const MAX_PATH: usize = 4095;
/// How much of a wrong value a message shows.
const SHOWN: usize = 128;

/// A value in a message: quoted, escaped and short.
pub(crate) fn shown(value: &str) -> String {
    if value.chars().count() <= SHOWN {
        return format!("{value:?}");
    }
    let start: String = value.chars().take(SHOWN).collect();
    format!("{start:?}… ({} bytes)", value.len())
}

/// Refuses what could not be passed to a kernel.
pub(crate) fn text(field: &str, value: &str, longest: usize) -> Result<(), SpecError> {
    if value.len() > longest {
        return Err(invalid(field, format!("{} bytes are more than the {longest} accepted", value.len())));
    }
    if value.contains('\0') {
        return Err(invalid(field, format!("{} contains a NUL byte", shown(value))));
    }
    Ok(())
}

/// A path that says the same everywhere, without `.`, `..` and doubled slashes.
pub(crate) fn absolute_path(field: &str, value: &str) -> Result<PathBuf, SpecError> {
    text(field, value, MAX_PATH)?;
    if !value.starts_with('/') {
        return Err(invalid(field, format!("{} is not an absolute path", shown(value))));
    }
    Ok(clean(Path::new(value)))
}

/// Resolves `.` and `..` by the letter, as containerd does.
fn clean(path: &Path) -> PathBuf {
    let mut cleaned = PathBuf::from("/");
    for part in path.components() {
        match part {
            Component::Normal(name) => cleaned.push(name),
            Component::ParentDir => {
                cleaned.pop();
            }
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    cleaned
}

/// A number that fits another type.
pub(crate) fn number<T: TryFrom<i64>>(field: &str, value: i64, accepted: &str) -> Result<T, SpecError> {
    T::try_from(value).map_err(|_| invalid(field, format!("{value} is not {accepted}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_cleaned_by_the_letter() {
        for (given, cleaned) in [("/a//b/./c/", "/a/b/c"), ("/a/../../b", "/b"), ("/", "/"), ("/..", "/")] {
            assert_eq!(absolute_path("p", given).unwrap(), Path::new(cleaned));
        }
    }

    #[test]
    fn what_no_kernel_takes_is_refused_by_name_and_shown_in_short() {
        for bad in ["", "a/b", "/a\0", &format!("/{}", "x".repeat(MAX_PATH))] {
            let error = absolute_path("mounts[0].host_path", bad).unwrap_err().to_string();
            assert!(error.starts_with("mounts[0].host_path: ") && error.len() < 300, "{error}");
        }
        assert!(shown(&"\u{1b}".repeat(10_000)).len() < 1000);
    }
}
