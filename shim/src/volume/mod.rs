//! Volumes: directories and files of the host that a container sees, live.

pub mod bind;
pub mod release;
