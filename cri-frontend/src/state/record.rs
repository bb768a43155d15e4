//! One record, in memory for all who ask and on disk for the next frontend.

use std::sync::{
    PoisonError, RwLock,
    atomic::{AtomicBool, Ordering},
};

use serde::Serialize;
use tokio::sync::{Mutex, watch};

use super::{Db, StateError, db::Change, tables::Table};

/// What can be stored.
pub trait Record: Serialize + Clone + Send + Sync + 'static {
    /// Where it stands.
    const TABLE: Table;

    /// Under which key.
    fn key(&self) -> &str;
}

/// A record's present value. Readers never wait; a write to disk always takes the latest value.
#[derive(Debug)]
pub struct Tracked<R> {
    current: RwLock<R>,
    changed: watch::Sender<()>,
    /// The disk may have an older value, or none.
    stale: AtomicBool,
    /// Orders the writes to disk; true when the record was deleted and must not come back.
    deleted: Mutex<bool>,
}

impl<R: Record> Tracked<R> {
    /// Tracks a record that may or may not be on disk yet.
    pub fn new(record: R) -> Self {
        Self {
            current: RwLock::new(record),
            changed: watch::Sender::default(),
            stale: AtomicBool::new(true),
            deleted: Mutex::new(false),
        }
    }

    /// The present value.
    pub fn get(&self) -> R {
        self.with(R::clone)
    }

    /// Looks at the present value.
    pub fn with<T>(&self, look: impl FnOnce(&R) -> T) -> T {
        look(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Waits until the value is as wanted.
    pub async fn wait_until(&self, wanted: impl Fn(&R) -> bool) {
        let mut changes = self.changed.subscribe();
        // The sender lives as long as `self`, so waiting ends only by a change.
        while !self.with(&wanted) && changes.changed().await.is_ok() {}
    }

    /// Changes the value in memory, in one step for all readers. `change` may refuse before it touches anything. Nobody is told:
    /// what listeners of events have to hear of goes through [`crate::node::Node`]'s `change_…`.
    pub fn update<T>(&self, change: impl FnOnce(&mut R) -> T) -> T {
        let outcome = change(&mut self.current.write().unwrap_or_else(PoisonError::into_inner));
        self.stale.store(true, Ordering::Release);
        self.changed.send_replace(());
        outcome
    }

    /// Writes the present value to disk, unless it is there already or was deleted meanwhile. Whoever did not succeed, on a
    /// full disk, may try again at any time.
    pub async fn persist(&self, db: &Db) -> Result<(), StateError> {
        let deleted = self.deleted.lock().await;
        if *deleted || !self.stale.swap(false, Ordering::Acquire) {
            return Ok(());
        }
        let written = match put(&self.get()) {
            Ok(change) => db.write(vec![change]).await,
            Err(error) => Err(error),
        };
        written.inspect_err(|_| self.stale.store(true, Ordering::Release))
    }

    /// As [`Self::update`], and on disk. Memory keeps the change where the disk refuses: it tells what is.
    pub async fn commit(&self, db: &Db, change: impl FnOnce(&mut R)) -> Result<(), StateError> {
        self.update(change);
        self.persist(db).await
    }

    /// Forgets the record on disk, for good.
    pub async fn delete(&self, db: &Db) -> Result<(), StateError> {
        let mut deleted = self.deleted.lock().await;
        let key = self.with(|record| record.key().to_owned());
        db.write(vec![Change::Delete(R::TABLE, key)]).await?;
        *deleted = true;
        Ok(())
    }
}

fn put<R: Record>(record: &R) -> Result<Change, StateError> {
    let key = record.key().to_owned();
    match serde_json::to_vec(record) {
        Ok(value) => Ok(Change::Put(R::TABLE, key, value)),
        Err(source) => Err(StateError::Encode { key, source }),
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Clone, Serialize, Deserialize)]
    struct Counter(u32);

    impl Record for Counter {
        const TABLE: Table = Table::Containers;

        fn key(&self) -> &str {
            "counter"
        }
    }

    #[tokio::test]
    async fn what_the_disk_refused_is_written_by_the_next_who_asks() {
        let (db, mut written) = Db::that_refuses_once();
        let record = Tracked::new(Counter(1));
        record.persist(&db).await.unwrap_err();
        record.persist(&db).await.unwrap();
        let value = |value: &str| Change::Put(Table::Containers, "counter".into(), value.into());
        assert_eq!(written.recv().await.unwrap(), [value("1")]);
        // There is nothing new.
        record.persist(&db).await.unwrap();
        record.commit(&db, |record| record.0 = 2).await.unwrap();
        assert_eq!(written.recv().await.unwrap(), [value("2")]);
        assert!(written.try_recv().is_err());
    }
}
