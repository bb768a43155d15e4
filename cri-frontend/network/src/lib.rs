//! Network namespaces and CNI: all that the frontend needs to give a pod its network, and nothing of the CRI.

mod arguments;
mod attachment;
mod bandwidth;
mod cache;
mod chain;
mod cni;
mod config;
mod error;
mod netns;
mod plugin;
mod pod;
mod text;

pub use arguments::{Dns, PortMapping, Protocol, RuntimeArguments};
pub use bandwidth::Bandwidth;
pub use cni::{Cni, NetworkSummary};
pub use error::{CniError, PluginError};
pub use netns::{NetnsError, NetworkNamespace};
pub use pod::PodNetwork;
