//! From a counter of processor time to its present rate.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// Two samples closer than this tell nothing of a rate.
const SHORTEST: Duration = Duration::from_millis(100);

/// Remembers the last sample of one counter.
#[derive(Debug, Default)]
pub struct Meter {
    last: Mutex<Option<Sample>>,
}

#[derive(Debug, Clone, Copy)]
struct Sample {
    at: Instant,
    used: u64,
    rate: Option<u64>,
}

impl Meter {
    /// Nanoseconds of processor time per second since the last sample; none at the first one.
    pub fn rate(&self, at: Instant, used: u64) -> Option<u64> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let rate = match *last {
            // The counter starts again with its VM.
            Some(before) if used < before.used => None,
            Some(before) if at.saturating_duration_since(before.at) < SHORTEST => return before.rate,
            Some(before) => {
                let elapsed = at.saturating_duration_since(before.at).as_nanos();
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

    fn seconds(from: Instant, count: u64) -> Instant {
        from + Duration::from_secs(count)
    }

    #[test]
    fn half_a_processor_is_half_a_billion() {
        let (meter, start) = (Meter::default(), Instant::now());
        assert_eq!(meter.rate(start, 0), None);
        assert_eq!(meter.rate(seconds(start, 10), 5_000_000_000), Some(500_000_000));
        assert_eq!(meter.rate(seconds(start, 12), 9_000_000_000), Some(2_000_000_000));
    }

    #[test]
    fn samples_too_close_repeat_the_last_rate() {
        let (meter, start) = (Meter::default(), Instant::now());
        meter.rate(start, 0);
        let next = seconds(start, 1);
        assert_eq!(meter.rate(next, 1_000_000_000), Some(1_000_000_000));
        assert_eq!(meter.rate(next + Duration::from_nanos(1), 1_000_000_001), Some(1_000_000_000));
        assert_eq!(meter.rate(start, 1_000_000_002), Some(1_000_000_000), "asked before, answered later");
    }

    #[test]
    fn a_counter_that_starts_again_has_no_rate_at_first() {
        let (meter, start) = (Meter::default(), Instant::now());
        meter.rate(start, 50);
        assert_eq!(meter.rate(seconds(start, 10), 10), None);
        assert_eq!(meter.rate(seconds(start, 20), 20), Some(1));
    }
}
