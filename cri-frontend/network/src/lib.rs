//! Network namespaces and CNI: all that the frontend needs to give a pod its network, and nothing of the CRI.

mod attachment;
mod cache;
mod chain;
mod cni;
mod config;
mod error;
mod netns;
mod plugin;
mod pod;
mod text;

pub use attachment::{Attachment, Interface};
pub use cni::{Cni, NetworkSummary};
pub use error::{CniError, PluginError};
pub use netns::{NetnsError, NetworkNamespace};
pub use pod::{PodNetwork, PortMapping, Protocol};
