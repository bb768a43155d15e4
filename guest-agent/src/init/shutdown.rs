//! The end of the guest.

use std::fs::File;

use rustix::fs::syncfs;

use crate::{
    error::{Failed, Step},
    paths,
    sys::process,
};

/// Ends the guest. QEMU runs with `-no-reboot`, so that a reset, which needs no ACPI, switches it off.
pub fn power_off() -> ! {
    process::reset_machine();
    // Without the right to reboot (a test outside a VM), or if the reset takes its time.
    process::exit(1)
}

/// Writes what containers wrote to the host's volumes. The scratch disk is not waited for: it ends with the pod.
pub fn sync_share() -> Result<(), Failed> {
    let share = File::open(paths::SHARE).step(|| "open the share".to_owned())?;
    syncfs(&share).step(|| "sync the share".to_owned())
}
