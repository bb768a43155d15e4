//! QEMU's `microvm` machine: the same command line under KVM and TCG.

mod arguments;
mod hotplug;
mod process;
mod qmp;

use std::path::PathBuf;

use a3s_box_proto::config::Vm;

pub use process::start;

/// The emulator, with the configuration's key for it.
pub fn program(config: &Vm) -> (&'static str, &PathBuf) {
    ("vm.qemu", &config.qemu)
}
