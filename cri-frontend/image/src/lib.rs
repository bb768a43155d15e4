//! The image store: pulls images from registries and keeps their layers as EROFS files.
//!
//! Nothing of an image is ever unpacked into the host's file system: a layer's tar stream goes through digest
//! checks, decompression and a normaliser into a confined `mkfs.erofs`. The crate knows nothing of CRI or gRPC.
//!
//! Data flows down: `pull` (names, manifests, which layers) → `registry` (hosts, log-in, downloads) and `layer`
//! (conversion) → `store` (what is kept).

mod credentials;
mod digest;
mod error;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzz;
mod image;
mod image_store;
mod layer;
mod pull;
mod reference;
mod registry;
mod store;
#[cfg(test)]
mod tests;

pub use credentials::Credentials;
pub use digest::{BadDigest, Digest};
pub use error::{ErrorKind, ImageError};
pub use image::{Image, Usage};
pub use image_store::ImageStore;
pub use layer::LayerError;
pub use reference::BadReference;
pub use registry::RegistryError;
pub use store::{Damage, Verified, verify};
