//! The domain's values in the CRI's words, and back.

pub mod container;
pub mod event;
pub mod image;
pub mod metrics;
pub mod node;
pub mod sandbox;
mod signal;
pub mod stats;

use std::collections::HashMap;

use serde_json::Value;

/// Who runs pods.
const RUNTIME_TYPE: &str = "a3s-box";

/// The one entry of a verbose answer.
fn info(value: &Value) -> HashMap<String, String> {
    HashMap::from([("info".to_owned(), value.to_string())])
}
