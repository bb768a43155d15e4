//! The domain's values in the CRI's words, and back.

pub mod container;
pub mod image;
pub mod sandbox;
mod signal;
pub mod stats;

use std::collections::HashMap;

use serde_json::Value;

/// The one entry of a verbose answer.
fn info(value: &Value) -> HashMap<String, String> {
    HashMap::from([("info".to_owned(), value.to_string())])
}
