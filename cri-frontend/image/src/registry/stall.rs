//! Tells a slow connection from one that only pretends to be alive.

use std::time::Duration;

/// Less than this in one period is no progress: one byte now and then must not hold a pull for ever.
pub(super) const LEAST_BYTES: usize = 4096;

/// Counts what comes while we wait for it; time in which nobody was ready to take data does not count.
#[derive(Debug)]
pub(super) struct Progress {
    period: Duration,
    waited: Duration,
    bytes: usize,
}

impl Progress {
    /// A connection that must bring something in each period.
    pub(super) fn new(period: Duration) -> Self {
        Self { period, waited: Duration::ZERO, bytes: 0 }
    }

    /// How long the next bytes may take.
    pub(super) fn patience(&self) -> Duration {
        self.period.saturating_sub(self.waited)
    }

    /// Notes what came after some waiting. False if the period is over and it was too little.
    pub(super) fn note(&mut self, waited: Duration, bytes: usize) -> bool {
        self.waited += waited;
        self.bytes = self.bytes.saturating_add(bytes);
        if self.bytes >= LEAST_BYTES {
            *self = Self::new(self.period);
        }
        self.waited < self.period
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trickle_is_no_progress() {
        let second = Duration::from_secs(1);
        let mut progress = Progress::new(second * 10);
        assert!((0..9).all(|_| progress.note(second, 1)));
        assert_eq!(progress.patience(), second);
        assert!(!progress.note(second, 1));

        let mut progress = Progress::new(second * 10);
        assert!((0..100).all(|_| progress.note(second, LEAST_BYTES)));
    }
}
