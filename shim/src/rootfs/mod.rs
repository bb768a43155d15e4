//! What containers' root filesystems are made of, put where the guest sees it.

pub mod layers;
pub mod mounted;
pub mod shared_dir;
