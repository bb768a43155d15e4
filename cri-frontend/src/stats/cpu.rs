//! From a counter of processor time to its present rate.

use std::sync::{Mutex, PoisonError};

/// Two samples closer than this tell nothing of a rate.
const SHORTEST_NANOS: i64 = 100_000_000;

/// Remembers the last sample of one counter.
#[derive(Debug, Default)]
pub struct Meter {
    last: Mutex<Option<Sample>>,
}

#[derive(Debug, Clone, Copy)]
struct Sample {
    at: i64,
    used: u64,
    rate: Option<u64>,
}

impl Meter {
    /// Nanoseconds of processor time per second since the last sample; none at the first one.
    pub fn rate(&self, at: i64, used: u64) -> Option<u64> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let rate = match *last {
            // The counter starts again with its VM.
            Some(before) if used < before.used => None,
            Some(before) if at.saturating_sub(before.at) < SHORTEST_NANOS => return before.rate,
            Some(before) => {
                let elapsed = u128::from(at.abs_diff(before.at));
                let spent = u128::from(used - before.used);
                u64::try_from(spent * 1_000_000_000 / elapsed).ok()
            }
            None => None,
        };
        *last = Some(Sample { at, used, rate });
        rate
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1_000_000_000;

    #[test]
    fn half_a_processor_is_half_a_billion() {
        let meter = Meter::default();
        assert_eq!(meter.rate(10 * SECOND, 0), None);
        assert_eq!(meter.rate(20 * SECOND, 5_000_000_000), Some(500_000_000));
        assert_eq!(meter.rate(22 * SECOND, 9_000_000_000), Some(2_000_000_000));
    }

    #[test]
    fn samples_too_close_repeat_the_last_rate() {
        let meter = Meter::default();
        meter.rate(10 * SECOND, 0);
        assert_eq!(meter.rate(11 * SECOND, 1_000_000_000), Some(1_000_000_000));
        assert_eq!(meter.rate(11 * SECOND + 1, 1_000_000_001), Some(1_000_000_000));
        assert_eq!(meter.rate(9 * SECOND, 1_000_000_002), Some(1_000_000_000), "the clock went back");
    }

    #[test]
    fn a_counter_that_starts_again_has_no_rate_at_first() {
        let meter = Meter::default();
        meter.rate(10 * SECOND, 50);
        assert_eq!(meter.rate(20 * SECOND, 10), None);
        assert_eq!(meter.rate(30 * SECOND, 20), Some(1));
    }
}
