//! The operating system, wrapped small: each file one kind of call.

pub mod bpf;
pub mod file;
pub mod lock;
pub mod mount;
pub mod namespace;
pub mod process;
pub mod socket;
pub mod tail;
pub mod thread;
pub mod uid;
