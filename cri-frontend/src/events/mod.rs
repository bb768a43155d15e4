//! What happens to pods and containers, for all who listen (GetContainerEvents).
//!
//! A change of a record and its event are one step: whoever subscribes and then lists misses nothing. Nobody waits for a
//! subscriber. One that falls too far behind is told so and cut off; it subscribes again and lists.

mod tell;

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::broadcast::{self, error::RecvError};

use crate::{clock::unix_nanos, container::ContainerRecord, sandbox::SandboxRecord};

/// Events that a subscriber may be behind.
const QUEUE: usize = 1024;
/// For how long events are kept while nobody listens: the first who does gets them. A restart is shorter.
const KEPT_NANOS: i64 = 5 * 60 * 1_000_000_000;

/// What has happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// It was made.
    Created,
    /// It runs.
    Started,
    /// It has ended, or will never run.
    Stopped,
    /// It is forgotten.
    Deleted,
}

/// Something that happened to a container, or to a pod sandbox, with how the pod was then.
#[derive(Debug)]
pub struct Event {
    /// The container's id, or the sandbox's own.
    pub subject: String,
    /// What has happened.
    pub kind: Kind,
    /// When, in nanoseconds since the epoch.
    pub at: i64,
    /// The pod.
    pub sandbox: SandboxRecord,
    /// Its containers.
    pub containers: Vec<ContainerRecord>,
}

/// Everything that happens.
#[derive(Debug)]
pub struct Events {
    hub: Mutex<Hub>,
}

#[derive(Debug)]
struct Hub {
    subscribers: broadcast::Sender<Arc<Event>>,
    /// What nobody has heard yet.
    kept: VecDeque<Arc<Event>>,
}

/// A subscriber's end.
#[derive(Debug)]
pub struct Subscription {
    kept: VecDeque<Arc<Event>>,
    receiver: broadcast::Receiver<Arc<Event>>,
}

/// Too slow: so many events are gone.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} events were dropped, since they were not read in time: subscribe again, then list")]
pub struct FellBehind(pub u64);

impl Default for Events {
    fn default() -> Self {
        Self { hub: Mutex::new(Hub { subscribers: broadcast::Sender::new(QUEUE), kept: VecDeque::new() }) }
    }
}

impl Events {
    /// From now on; the first one also gets what nobody has heard lately.
    pub fn subscribe(&self) -> Subscription {
        let mut hub = self.lock();
        hub.forget_old(unix_nanos());
        Subscription { kept: std::mem::take(&mut hub.kept), receiver: hub.subscribers.subscribe() }
    }

    fn lock(&self) -> MutexGuard<'_, Hub> {
        self.hub.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Hub {
    fn publish(&mut self, event: Event) {
        // An error means that nobody listens, and gives the event back.
        if let Err(unheard) = self.subscribers.send(Arc::new(event)) {
            self.forget_old(unheard.0.at);
            self.kept.push_back(unheard.0);
        }
    }

    fn forget_old(&mut self, now: i64) {
        self.kept.retain(|event| now.saturating_sub(event.at) < KEPT_NANOS);
        while self.kept.len() >= QUEUE {
            self.kept.pop_front();
        }
    }
}

impl Subscription {
    /// The next event; none when the frontend ends.
    pub async fn next(&mut self) -> Option<Result<Arc<Event>, FellBehind>> {
        if let Some(event) = self.kept.pop_front() {
            return Some(Ok(event));
        }
        match self.receiver.recv().await {
            Ok(event) => Some(Ok(event)),
            Err(RecvError::Lagged(missed)) => Some(Err(FellBehind(missed))),
            Err(RecvError::Closed) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use a3s_box_proto::cri::PodSandboxConfig;

    use super::*;
    use crate::sandbox::{NetworkMode, Phase};

    fn event(subject: usize, at: i64) -> Event {
        let sandbox = SandboxRecord {
            id: "s".parse().unwrap(),
            config: Arc::new(PodSandboxConfig::default()),
            handler: String::new(),
            created_at: 0,
            boot_id: String::new(),
            network: NetworkMode::None,
            ips: Vec::new(),
            phase: Phase::Ready,
        };
        Event { subject: subject.to_string(), kind: Kind::Started, at, sandbox, containers: Vec::new() }
    }

    async fn next(subscription: &mut Subscription) -> String {
        subscription.next().await.unwrap().unwrap().subject.clone()
    }

    #[tokio::test]
    async fn a_slow_subscriber_is_told_and_holds_up_nobody() {
        let events = Events::default();
        let (mut slow, mut quick) = (events.subscribe(), events.subscribe());
        for number in 0..QUEUE + 5 {
            events.lock().publish(event(number, unix_nanos()));
            assert_eq!(next(&mut quick).await, number.to_string());
        }
        assert_eq!(slow.next().await.unwrap().unwrap_err(), FellBehind(5));
    }

    #[tokio::test]
    async fn what_nobody_heard_is_for_the_first_who_listens() {
        let events = Events::default();
        events.lock().publish(event(0, unix_nanos() - KEPT_NANOS));
        for number in 1..=2 {
            events.lock().publish(event(number, unix_nanos()));
        }
        let (mut first, mut second) = (events.subscribe(), events.subscribe());
        events.lock().publish(event(3, unix_nanos()));
        for number in 1..=3 {
            assert_eq!(next(&mut first).await, number.to_string());
        }
        assert_eq!(next(&mut second).await, "3");
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let events = Events::default();
        for number in 0..3 * QUEUE {
            events.lock().publish(event(number, unix_nanos()));
        }
        assert_eq!(events.lock().kept.len(), QUEUE);
    }
}
