//! Work that several callers wait for is done once.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Arc, Mutex, PoisonError},
};

use futures::{
    FutureExt,
    future::{BoxFuture, Shared, WeakShared},
};

use crate::ImageError;

type Work<T> = BoxFuture<'static, Result<T, Arc<ImageError>>>;

/// Work under way, by what it is about. It is driven by whoever waits for it, and dropped with the last one.
pub(super) struct Flights<K, T> {
    running: Mutex<HashMap<K, WeakShared<Work<T>>>>,
}

impl<K, T: Clone> Default for Flights<K, T> {
    fn default() -> Self {
        Self { running: Mutex::default() }
    }
}

impl<K: Eq + Hash, T: Clone + Send + Sync + 'static> Flights<K, T> {
    /// Waits for the work about a key; starts it if nobody did.
    pub(super) async fn join<F>(&self, key: K, start: impl FnOnce() -> F) -> Result<T, ImageError>
    where
        F: Future<Output = Result<T, ImageError>> + Send + 'static,
    {
        let flight = self.enter(key, start);
        let result = flight.await;
        result.map_err(|error| Arc::try_unwrap(error).unwrap_or_else(ImageError::Joined))
    }

    fn enter<F>(&self, key: K, start: impl FnOnce() -> F) -> Shared<Work<T>>
    where
        F: Future<Output = Result<T, ImageError>> + Send + 'static,
    {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        running.retain(|_, flight| flight.upgrade().is_some());
        // One that has ended is history: its answer may be out of date.
        let known = running.get(&key).and_then(WeakShared::upgrade).filter(|flight| flight.peek().is_none());
        known.unwrap_or_else(|| {
            let flight = start().map(|result| result.map_err(Arc::new)).boxed().shared();
            if let Some(weak) = flight.downgrade() {
                running.insert(key, weak);
            }
            flight
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn callers_share_one_run_and_survive_each_other() {
        let flights: Flights<&str, u32> = Flights::default();
        let runs = Arc::new(AtomicU32::new(0));
        let (finish, finished) = oneshot::channel::<u32>();
        let counter = runs.clone();
        let first = flights.enter("a", move || async move {
            counter.fetch_add(1, Ordering::SeqCst);
            finished.await.map_err(|_| ImageError::NotFound { name: "x".into() })
        });
        let second = flights.enter("a", || async { Ok(0) });
        assert!(futures::poll!(first.clone()).is_pending());
        drop(first);
        finish.send(7).unwrap();
        assert_eq!(second.await.unwrap(), 7);
        assert_eq!(runs.load(Ordering::SeqCst), 1);
        assert_eq!(flights.join("a", || async { Ok(8) }).await.unwrap(), 8);
    }

    #[tokio::test]
    async fn the_last_caller_takes_the_work_along() {
        let flights: Flights<&str, u32> = Flights::default();
        let (_keep, never) = oneshot::channel::<u32>();
        let (alive, mut gone) = oneshot::channel::<()>();
        let flight = flights.enter("a", move || async move {
            let _alive = alive;
            never.await.map_err(|_| ImageError::NotFound { name: "x".into() })
        });
        assert!(futures::poll!(flight.clone()).is_pending());
        drop(flight);
        assert!(matches!(gone.try_recv(), Err(oneshot::error::TryRecvError::Closed)));
    }
}
