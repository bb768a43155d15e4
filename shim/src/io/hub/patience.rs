//! How long a client may hold others up.

use std::time::Duration;

use tokio::time::Instant;

/// In one go, and at first.
pub const MOST: Duration = Duration::from_secs(1);
/// In so many times as long, that much is given back.
const REFILL: u32 = 10;

/// What is left to a client of the time that others wait for it: spent by waiting, given back slowly.
#[derive(Debug)]
pub struct Patience {
    left: Duration,
    at: Instant,
}

impl Default for Patience {
    fn default() -> Self {
        Self { left: MOST, at: Instant::now() }
    }
}

impl Patience {
    /// What is left now.
    pub fn left(&mut self) -> Duration {
        let now = Instant::now();
        self.left = MOST.min(self.left + (now - self.at) / REFILL);
        self.at = now;
        self.left
    }

    /// So long has been waited.
    pub fn spend(&mut self, waited: Duration) {
        self.left = self.left().saturating_sub(waited);
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_was_spent_comes_back_slowly_and_not_beyond_the_most() {
        let mut patience = Patience::default();
        advance(100 * MOST).await;
        assert_eq!(patience.left(), MOST);
        patience.spend(MOST / 2);
        assert_eq!(patience.left(), MOST / 2);
        advance(MOST).await;
        assert_eq!(patience.left(), MOST / 2 + MOST / REFILL);
        patience.spend(2 * MOST);
        assert_eq!(patience.left(), Duration::ZERO);
    }
}
