//! What clients hang on pods and containers. It is kept and given back unchanged, so its size is bounded.

use std::collections::HashMap;

use crate::{
    check,
    error::{SpecError, invalid},
};

/// Longer than any name that Kubernetes allows.
const LONGEST_NAME: usize = 253;
/// More labels, or annotations, than anyone has use for.
const MOST: usize = 1024;
/// Key and value of a label together, as in containerd.
const LONGEST_LABEL: usize = 4096;
/// All annotations together, keys and values: four times what Kubernetes takes.
const MOST_BYTES: usize = 1024 * 1024;

/// Checks a name that becomes part of other names: not too long, no slashes, no control characters.
///
/// # Errors
/// It is not so; the message names the field.
pub fn check_name(field: &str, value: &str) -> Result<(), SpecError> {
    if value.len() > LONGEST_NAME || value.chars().any(|c| c.is_control() || c == '/') {
        let reason = format!(
            "{} is not accepted: at most {LONGEST_NAME} bytes without slashes and control characters are",
            check::shown(value)
        );
        return Err(invalid(field, reason));
    }
    Ok(())
}

/// Checks labels and annotations.
///
/// # Errors
/// There are too many, one is too long, or one has a NUL byte; the message names it.
pub fn check_labels(
    labels: &HashMap<String, String>,
    annotations: &HashMap<String, String>,
) -> Result<(), SpecError> {
    check_map("labels", labels, LONGEST_LABEL)?;
    check_map("annotations", annotations, MOST_BYTES)?;
    let bytes: usize = annotations.iter().map(|(key, value)| key.len() + value.len()).sum();
    if bytes > MOST_BYTES {
        return Err(invalid("annotations", format!("{bytes} bytes are more than the {MOST_BYTES} accepted")));
    }
    Ok(())
}

fn check_map(field: &str, map: &HashMap<String, String>, longest: usize) -> Result<(), SpecError> {
    if map.len() > MOST {
        return Err(invalid(field, format!("{} of them are more than the {MOST} accepted", map.len())));
    }
    for (key, value) in map {
        let field = || format!("{field}[{}]", check::shown(key));
        if key.len() + value.len() > longest {
            let bytes = key.len() + value.len();
            return Err(invalid(field(), format!("{bytes} bytes are more than the {longest} accepted")));
        }
        if key.contains('\0') || value.contains('\0') {
            return Err(invalid(field(), "it contains a NUL byte"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> HashMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn what_is_too_much_is_refused_by_name_and_shown_in_short() {
        let none = HashMap::new();
        let many = (0..=MOST).map(|number| (number.to_string(), String::new())).collect();
        let long = "x".repeat(LONGEST_LABEL);
        for (of_labels, of_annotations, word) in [
            (&many, &none, "labels"),
            (&none, &many, "annotations"),
            (&labels(&[("k", &long)]), &none, "labels[\"k\"]"),
            (&labels(&[(&long, "v")]), &none, "labels["),
            (&labels(&[("k", "a\0b")]), &none, "NUL"),
            (
                &none,
                &labels(&[("k", &"x".repeat(MOST_BYTES / 2)), ("l", &"x".repeat(MOST_BYTES / 2))]),
                "bytes",
            ),
        ] {
            let error = check_labels(of_labels, of_annotations).unwrap_err().to_string();
            assert!(error.contains(word) && error.len() < 400, "{error}");
        }
        let usual = labels(&[("io.kubernetes.pod.name", "web"), ("empty", ""), ("note", "two\nlines")]);
        check_labels(&usual, &usual).unwrap();
    }

    #[test]
    fn names_are_names() {
        check_name("metadata.name", "web-0.x_y").unwrap();
        for bad in ["a/b", "a\0b", "a\nb", &"x".repeat(10_000)] {
            let error = check_name("metadata.name", bad).unwrap_err().to_string();
            assert!(error.starts_with("metadata.name: ") && error.len() < 400, "{error}");
        }
    }
}
