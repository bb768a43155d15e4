//! Names that only one object may have, from the moment that someone begins to make it.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::watch;

use crate::error::Error;

/// What the maker of an object tells all who wait for it.
pub type Outcome = Option<Result<String, Arc<Error>>>;

/// The reserved names of one kind of object.
#[derive(Debug, Clone, Default)]
pub struct Names {
    entries: Arc<Mutex<HashMap<String, Entry>>>,
}

#[derive(Debug)]
enum Entry {
    Making { id: String, outcome: watch::Receiver<Outcome> },
    Taken { id: String },
}

/// How a claim was received.
#[derive(Debug)]
pub enum Claim {
    /// The name is the caller's, who makes the object.
    Granted(Reservation),
    /// Someone makes the object now: here comes the answer.
    Making {
        /// The id that the object will have.
        id: String,
        /// Holds the outcome when it is known.
        outcome: watch::Receiver<Outcome>,
    },
    /// An object has this name.
    Taken {
        /// Its id.
        id: String,
    },
}

/// A name while its object is made; dropped without [`Self::keep`], the name is free again.
#[derive(Debug)]
pub struct Reservation {
    names: Names,
    name: String,
    id: String,
    outcome: watch::Sender<Outcome>,
    kept: bool,
}

impl Names {
    /// Claims a name for the object `id`.
    pub fn claim(&self, name: &str, id: &str) -> Claim {
        let mut entries = self.lock();
        match entries.get(name) {
            Some(Entry::Taken { id }) => Claim::Taken { id: id.clone() },
            Some(Entry::Making { id, outcome }) => Claim::Making { id: id.clone(), outcome: outcome.clone() },
            None => {
                let (outcome, receiver) = watch::channel(None);
                entries.insert(name.to_owned(), Entry::Making { id: id.to_owned(), outcome: receiver });
                Claim::Granted(Reservation {
                    names: self.clone(),
                    name: name.to_owned(),
                    id: id.to_owned(),
                    outcome,
                    kept: false,
                })
            }
        }
    }

    /// Takes the name of an object that exists already.
    pub fn take(&self, name: &str, id: &str) {
        self.lock().insert(name.to_owned(), Entry::Taken { id: id.to_owned() });
    }

    /// Frees the name of an object, if it is that object's.
    pub fn free(&self, name: &str, id: &str) {
        let mut entries = self.lock();
        let Some(Entry::Taken { id: owner } | Entry::Making { id: owner, .. }) = entries.get(name) else {
            return;
        };
        if owner == id {
            entries.remove(name);
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Reservation {
    /// Where the answer will be.
    pub fn outcome(&self) -> watch::Receiver<Outcome> {
        self.outcome.subscribe()
    }

    /// The object exists: the name is its own until it is freed.
    pub fn keep(&mut self) {
        self.kept = true;
        self.names.take(&self.name, &self.id);
    }

    /// Answers all who wait, and frees the name unless it was kept.
    pub fn finish(self, result: Result<String, Arc<Error>>) {
        let outcome = self.outcome.clone();
        // The name first: who hears of the failure may try again at once.
        drop(self);
        outcome.send_replace(Some(result));
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if !self.kept {
            self.names.free(&self.name, &self.id);
        }
    }
}

/// Waits for the answer of the object's maker.
pub async fn answer(mut outcome: watch::Receiver<Outcome>) -> Result<String, Error> {
    match outcome.wait_for(Option::is_some).await {
        Ok(known) => match &*known {
            Some(Ok(id)) => Ok(id.clone()),
            Some(Err(error)) => Err(Error::Shared(error.clone())),
            None => Err(Error::Abandoned("no outcome".into())),
        },
        Err(_) => Err(Error::Abandoned("its task ended".into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn granted(claim: Claim) -> Reservation {
        match claim {
            Claim::Granted(reservation) => reservation,
            other => panic!("not granted: {other:?}"),
        }
    }

    #[tokio::test]
    async fn a_second_caller_gets_the_first_ones_answer() {
        let names = Names::default();
        let mut first = granted(names.claim("web", "1"));
        let Claim::Making { id, outcome } = names.claim("web", "2") else { panic!("not joined") };
        assert_eq!(id, "1");
        first.keep();
        first.finish(Ok("1".into()));
        assert_eq!(answer(outcome).await.unwrap(), "1");
        assert!(matches!(names.claim("web", "3"), Claim::Taken { id } if id == "1"));
        names.free("web", "another");
        assert!(matches!(names.claim("web", "3"), Claim::Taken { .. }));
        names.free("web", "1");
        granted(names.claim("web", "3"));
    }

    #[tokio::test]
    async fn a_failed_attempt_frees_the_name_and_tells_all() {
        let names = Names::default();
        let first = granted(names.claim("web", "1"));
        let Claim::Making { outcome, .. } = names.claim("web", "2") else { panic!("not joined") };
        first.finish(Err(Arc::new(Error::Invalid("no".into()))));
        assert_eq!(answer(outcome).await.unwrap_err().to_string(), "no");
        granted(names.claim("web", "2"));
    }

    #[tokio::test]
    async fn a_maker_that_disappears_frees_the_name() {
        let names = Names::default();
        let first = granted(names.claim("web", "1"));
        let Claim::Making { outcome, .. } = names.claim("web", "2") else { panic!("not joined") };
        drop(first);
        assert!(answer(outcome).await.is_err());
        granted(names.claim("web", "2"));
    }
}
