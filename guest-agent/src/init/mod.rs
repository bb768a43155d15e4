//! From the kernel's hand-over to a guest that can hold containers, and back.

pub mod cgroup;
pub mod console;
pub mod entropy;
pub mod limits;
pub mod mounts;
pub mod network;
mod replay;
pub mod shutdown;
pub mod sysctl;
