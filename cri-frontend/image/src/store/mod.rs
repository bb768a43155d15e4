//! Images on disk.
//!
//! | path | content |
//! |---|---|
//! | `lock` | flock of the one process that uses the store |
//! | `index.json` | all images: names, digests, layers; replaced as a whole |
//! | `blobs/<hex>` | layers as the registry sent them, where the configuration keeps them |
//! | `manifests/<hex>`, `configs/<hex>` | as the registry sent them |
//! | `layers/<diff\|chain>-<hex>/` | `layer.erofs`, and `layer.json` with its digest |
//! | `tmp/` | what is in the making; emptied at start |
//!
//! What is named in `index.json` is complete: everything else is written, synced and renamed before.

mod background;
mod disk;
mod index;
mod layer;
mod lease;
mod lock;
mod names;
mod state;
mod usage;
mod verify;

pub(crate) use background::in_background;
pub(crate) use disk::Workspace;
pub(crate) use layer::{LayerFacts, LayerKey, StoredLayer};
pub(crate) use lease::Lease;
pub(crate) use state::{KeptBlob, NewImage, Store};
pub use verify::{Damage, Verified, verify};
