//! Bytes on their way to the host: little by frames, much through a file.

mod bulk;
mod flow;

pub use bulk::Bulk;
pub use flow::Flow;
