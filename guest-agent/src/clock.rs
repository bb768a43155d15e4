//! The guest's clock follows the host's.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::{
    error::{Failed, Step},
    sys::time,
};

/// A greater difference is stepped over: slewing one second away takes half an hour.
const STEP_BEYOND_NANOS: i64 = 1_000_000_000;

/// The real-time clock of an emulated machine tells whole seconds: the host's first word, before there is a container,
/// is taken as it is.
#[derive(Debug, Default)]
pub struct Clock {
    was_set: AtomicBool,
}

/// What a difference calls for.
#[derive(Debug, PartialEq, Eq)]
enum Correction {
    Step,
    SlewMicroseconds(i64),
}

fn correction(difference_nanos: i64, was_set: bool) -> Correction {
    if !was_set || difference_nanos.unsigned_abs() > STEP_BEYOND_NANOS.unsigned_abs() {
        Correction::Step
    } else {
        Correction::SlewMicroseconds(difference_nanos / 1000)
    }
}

impl Clock {
    /// Brings the clock to the host's time.
    pub fn follow(&self, host_unix_nanos: i64) -> Result<(), Failed> {
        let was_set = self.was_set.swap(true, Ordering::Relaxed);
        match correction(host_unix_nanos.saturating_sub(time::unix_nanos()), was_set) {
            Correction::Step => {
                if was_set {
                    tracing::info!(host_unix_nanos, "clock stepped");
                }
                time::step_to(host_unix_nanos).step(|| "set the clock".to_owned())
            }
            Correction::SlewMicroseconds(by) => time::slew_by(by).step(|| "slew the clock".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_differences_are_slewed_and_great_ones_stepped() {
        assert_eq!(correction(999_999_000, true), Correction::SlewMicroseconds(999_999));
        assert_eq!(correction(-5_000, true), Correction::SlewMicroseconds(-5));
        assert_eq!(correction(1_000_000_001, true), Correction::Step);
        assert_eq!(correction(i64::MIN, true), Correction::Step);
        assert_eq!(correction(-5_000, false), Correction::Step);
    }
}
