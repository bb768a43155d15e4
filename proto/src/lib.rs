//! What two processes of a3s-box must agree on, and nothing else.
//!
//! Each protocol's bindings stand behind a feature, so that the guest's agent never compiles gRPC.

#[cfg(feature = "config")]
pub mod accelerator;
#[cfg(feature = "config")]
pub mod config;
pub mod id_set;
pub mod ids;
pub mod ports;
pub mod stdio;
#[cfg(feature = "stream")]
pub mod stream;
pub mod sysctl;

/// Kubernetes' Container Runtime Interface, `runtime.v1`.
#[cfg(feature = "cri-messages")]
#[allow(missing_docs, clippy::all, clippy::pedantic, clippy::restriction)]
pub mod cri {
    include!(concat!(env!("OUT_DIR"), "/runtime.v1.rs"));
}

/// The guest agent's service, `a3s.box.agent.v1`: messages in `agent`, service in `agent_ttrpc`.
#[cfg(feature = "agent")]
#[allow(missing_docs, clippy::all, clippy::pedantic, clippy::restriction)]
mod agent_bindings {
    include!(concat!(env!("OUT_DIR"), "/agent/mod.rs"));
}
#[cfg(feature = "agent")]
pub use agent_bindings::{agent, agent_ttrpc};

/// The shim's own service, `a3s.box.shim.v1`: messages in `shim`, service in `shim_ttrpc`.
#[cfg(feature = "shim")]
#[allow(missing_docs, clippy::all, clippy::pedantic, clippy::restriction)]
mod shim_bindings {
    include!(concat!(env!("OUT_DIR"), "/shim/mod.rs"));
}
#[cfg(feature = "shim")]
pub use shim_bindings::{shim, shim_ttrpc};
