//! QEMU's `microvm` machine: the same command line under KVM and TCG.

mod arguments;
mod hotplug;
mod process;
mod qmp;

pub use process::{Paths, Qemu, start};
