//! From the kernel's hand-over to a guest that can hold containers, and back.

pub mod cgroup;
pub mod console;
pub mod entropy;
pub mod limits;
pub mod mounts;
mod netlink;
pub mod network;
pub mod shutdown;
pub mod sysctl;
