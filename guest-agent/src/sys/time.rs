//! The clock of the guest.

use std::{
    io,
    time::{SystemTime, UNIX_EPOCH},
};

/// Now, in nanoseconds since the epoch.
pub fn unix_nanos() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

/// Sets the clock at once.
pub fn step_to(unix_nanos: i64) -> io::Result<()> {
    let time = libc::timespec {
        tv_sec: unix_nanos.div_euclid(1_000_000_000),
        tv_nsec: unix_nanos.rem_euclid(1_000_000_000),
    };
    // SAFETY: the structure lives through the call.
    match unsafe { libc::clock_settime(libc::CLOCK_REALTIME, &raw const time) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Lets the clock run a little faster or slower until it has made up that much.
pub fn slew_by(microseconds: i64) -> io::Result<()> {
    // SAFETY: all-zero is a valid timex.
    let mut adjustment: libc::timex = unsafe { std::mem::zeroed() };
    adjustment.modes = libc::ADJ_OFFSET_SINGLESHOT;
    adjustment.offset = microseconds;
    // SAFETY: the structure lives through the call.
    match unsafe { libc::adjtimex(&raw mut adjustment) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}
