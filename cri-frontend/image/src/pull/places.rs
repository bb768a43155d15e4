//! How many layers are converted at once on the whole node, and as which users.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use a3s_box_proto::config::CONVERTER_UIDS;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::ImageError;

/// Places for conversions. Those of layers that must be made again are apart: who has a place may wait for a layer below, and
/// that for nothing but such a place.
#[derive(Debug)]
pub(super) struct Places {
    first: Arc<Semaphore>,
    again: Arc<Semaphore>,
    users: Mutex<BTreeSet<u32>>,
}

/// A place, until it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    /// A user that no other converter has meanwhile.
    pub user: u32,
    places: Arc<Places>,
    _permit: OwnedSemaphorePermit,
}

impl Places {
    pub(super) fn new(count: usize) -> Self {
        Self {
            first: Arc::new(Semaphore::new(count)),
            again: Arc::new(Semaphore::new(count)),
            users: Mutex::new(CONVERTER_UIDS.collect()),
        }
    }

    /// Waits until a layer can be converted.
    pub(super) async fn first(self: &Arc<Self>) -> Result<Arc<Place>, ImageError> {
        self.take(&self.first).await
    }

    /// Waits until a layer can be made again. Its conversion must not wait for other layers.
    pub(super) async fn again(self: &Arc<Self>) -> Result<Arc<Place>, ImageError> {
        self.take(&self.again).await
    }

    async fn take(self: &Arc<Self>, semaphore: &Arc<Semaphore>) -> Result<Arc<Place>, ImageError> {
        let failed = |reason| ImageError::Worker { task: "a layer's conversion", reason };
        let permit = semaphore.clone().acquire_owned().await.map_err(|error| failed(error.to_string()))?;
        // The configuration allows no more places than there are users.
        let user = self.users().pop_first().ok_or_else(|| failed("no user id is left for it".into()))?;
        Ok(Arc::new(Place { user, places: self.clone(), _permit: permit }))
    }

    fn users(&self) -> MutexGuard<'_, BTreeSet<u32>> {
        self.users.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.users().insert(self.user);
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[tokio::test]
    async fn no_two_converters_have_one_user_and_no_more_run_than_there_are_places() {
        let places = Arc::new(Places::new(2));
        let [one, two] = [places.first().await.unwrap(), places.first().await.unwrap()];
        let again = places.again().await.unwrap();
        assert_eq!(BTreeSet::from([one.user, two.user, again.user]).len(), 3);
        assert!(places.first().now_or_never().is_none());
        drop(again);
        assert!(places.first().now_or_never().is_none());
        // Its thread still runs, though the pull was given up.
        let (user, thread) = (two.user, two.clone());
        drop(two);
        assert!(places.first().now_or_never().is_none());
        drop(thread);
        let next = places.first().now_or_never().unwrap().unwrap();
        assert!(next.user != one.user && CONVERTER_UIDS.contains(&user));
    }
}
