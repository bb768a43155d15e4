//! The time as the CRI counts it, and which boot of the machine this is.

use std::{
    fs,
    time::{SystemTime, UNIX_EPOCH},
};

/// Nanoseconds since the epoch.
pub fn unix_nanos() -> i64 {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(elapsed.as_nanos()).unwrap_or(i64::MAX)
}

/// Changes with each boot of the machine; empty where the kernel does not tell, which equals itself.
pub fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .map(|text| text.trim().to_owned())
        .unwrap_or_default()
}
