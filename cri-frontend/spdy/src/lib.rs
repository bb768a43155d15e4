//! SPDY/3.1: frames and header blocks.

#![forbid(unsafe_code)]

pub mod frame;
pub mod headers;

pub use frame::{ResetStatus, StreamId};
pub use headers::Headers;
