//! The guest's clock follows the host's.

use crate::{
    error::{Failed, Step},
    sys::time,
};

/// A greater difference is stepped over: slewing one second away takes half an hour.
const STEP_BEYOND_NANOS: i64 = 1_000_000_000;

/// What a difference calls for.
#[derive(Debug, PartialEq, Eq)]
enum Correction {
    Step,
    SlewMicroseconds(i64),
}

fn correction(difference_nanos: i64) -> Correction {
    if difference_nanos.unsigned_abs() > STEP_BEYOND_NANOS.unsigned_abs() {
        Correction::Step
    } else {
        Correction::SlewMicroseconds(difference_nanos / 1000)
    }
}

/// Brings the clock to the host's time.
pub fn follow(host_unix_nanos: i64) -> Result<(), Failed> {
    match correction(host_unix_nanos.saturating_sub(time::unix_nanos())) {
        Correction::Step => {
            tracing::info!(host_unix_nanos, "clock stepped");
            time::step_to(host_unix_nanos).step(|| "set the clock".to_owned())
        }
        Correction::SlewMicroseconds(by) => time::slew_by(by).step(|| "slew the clock".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_differences_are_slewed_and_great_ones_stepped() {
        assert_eq!(correction(999_999_000), Correction::SlewMicroseconds(999_999));
        assert_eq!(correction(-5_000), Correction::SlewMicroseconds(-5));
        assert_eq!(correction(1_000_000_001), Correction::Step);
        assert_eq!(correction(i64::MIN), Correction::Step);
    }
}
