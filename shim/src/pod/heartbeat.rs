//! Tells the guest the time, as long as it runs, and notices when nobody there takes it any more.

use std::time::Duration;

use tokio::time::{sleep, timeout};
use tracing::warn;

use crate::agent::{Agent, AgentError};

/// Between two words of the time: the guest's own clock drifts, and stands still while the host sleeps.
const PERIOD: Duration = Duration::from_secs(30);
/// A guest is given up only after so many questions of their own: the one that was on its way while the host, or this
/// process, stood still proves nothing.
const QUESTIONS: u32 = 3;
/// Between a broken channel and the next attempt.
const PAUSE: Duration = Duration::from_millis(100);

/// Ends when the guest has not answered for so long, and says so. Never, where that is zero.
pub(super) async fn lost(agent: &Agent, patience: Duration) -> String {
    silence(|| agent.set_clock(), patience).await
}

async fn silence<Told>(tell: impl Fn() -> Told, patience: Duration) -> String
where
    Told: Future<Output = Result<(), AgentError>>,
{
    let period = if patience.is_zero() { PERIOD } else { PERIOD.min(patience) };
    loop {
        sleep(period).await;
        if patience.is_zero() {
            if let Err(error) = tell().await {
                warn!(%error, "the guest did not take the time");
            }
        } else if !answers(&tell, patience / QUESTIONS).await {
            return format!("the guest has not answered for {patience:?} (vm.unresponsive_timeout_s)");
        }
    }
}

async fn answers<Told>(tell: &impl Fn() -> Told, each: Duration) -> bool
where
    Told: Future<Output = Result<(), AgentError>>,
{
    for question in 1..=QUESTIONS {
        if timeout(each, answered(tell)).await.is_ok() {
            return true;
        }
        warn!(question, "the guest does not answer");
    }
    false
}

/// Any word will do: whoever refuses is alive.
async fn answered<Told>(tell: &impl Fn() -> Told)
where
    Told: Future<Output = Result<(), AgentError>>,
{
    loop {
        match tell().await {
            Ok(()) => return,
            Err(AgentError::TimedOut { .. }) => sleep(PAUSE).await,
            Err(error) => {
                warn!(%error, "the guest did not take the time");
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use tokio::time::Instant;
    use ttrpc::Code;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(120);

    fn timed_out() -> AgentError {
        AgentError::TimedOut { call: "set_clock", within: PAUSE, cause: "it is silent".into() }
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_guest_is_given_up_within_the_bound() {
        let begun = Instant::now();
        let why = silence(std::future::pending, PATIENCE).await;
        assert!(why.contains("120s"), "{why}");
        assert_eq!(begun.elapsed(), PERIOD + PATIENCE);
        let broken = silence(|| std::future::ready(Err(timed_out())), PATIENCE);
        timeout(PERIOD + PATIENCE + PAUSE, broken).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn who_answers_late_or_refuses_lives() {
        let asked = AtomicU32::new(0);
        let slow = || async {
            match asked.fetch_add(1, Ordering::Relaxed) % 3 {
                0 => std::future::pending().await,
                1 => Err(timed_out()),
                _ => {
                    Err(AgentError::Refused { call: "set_clock", code: Code::INTERNAL, message: "no".into() })
                }
            }
        };
        assert!(timeout(PATIENCE * 100, silence(slow, PATIENCE)).await.is_err());
        assert!(asked.into_inner() > 100);
        let never = silence(|| std::future::ready(Err(timed_out())), Duration::ZERO);
        assert!(timeout(PATIENCE * 100, never).await.is_err());
    }
}
