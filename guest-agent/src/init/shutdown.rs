//! The end of the guest.

use std::{os::fd::AsRawFd, path::Path};

use crate::{
    error::{Failed, Step},
    paths,
};

/// Ends the guest. QEMU runs with `-no-reboot`, so that a reset, which needs no ACPI, switches it off.
pub fn power_off() -> ! {
    // SAFETY: plain integers; every process but this one may end at any moment.
    unsafe { libc::reboot(libc::RB_AUTOBOOT) };
    // Without the right to reboot (a test outside a VM), or if the reset takes its time.
    crate::sys::process::exit(1)
}

/// Writes what containers wrote to the host's volumes. The scratch disk is not waited for: it ends with the pod.
pub fn sync_share() -> Result<(), Failed> {
    let share = std::fs::File::open(Path::new(paths::SHARE)).step(|| "open the share".to_owned())?;
    // SAFETY: a plain descriptor.
    match unsafe { libc::syncfs(share.as_raw_fd()) } {
        0 => Ok(()),
        _ => Err(std::io::Error::last_os_error()).step(|| "sync the share".to_owned()),
    }
}
