//! Kubernetes' labels.

use std::collections::HashMap;

/// Whether all wanted labels are there, with the wanted values.
pub fn has_labels(labels: &HashMap<String, String>, wanted: &HashMap<String, String>) -> bool {
    wanted.iter().all(|(key, value)| labels.get(key) == Some(value))
}
