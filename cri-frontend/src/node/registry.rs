//! Objects by id, where the beginning of an id is enough if it fits only one.

use std::{
    collections::BTreeMap,
    ops::Bound,
    sync::{Arc, PoisonError, RwLock},
};

use crate::error::Error;

/// All objects of one kind.
#[derive(Debug)]
pub struct Registry<T> {
    what: &'static str,
    objects: RwLock<BTreeMap<String, Arc<T>>>,
}

impl<T> Registry<T> {
    /// An empty registry of what is called `what` in errors.
    pub fn new(what: &'static str) -> Self {
        Self { what, objects: RwLock::default() }
    }

    /// Adds an object, or replaces the one of the same id.
    pub fn insert(&self, id: &str, object: Arc<T>) {
        self.objects.write().unwrap_or_else(PoisonError::into_inner).insert(id.to_owned(), object);
    }

    /// Forgets an object; false if it was forgotten already.
    pub fn remove(&self, id: &str) -> bool {
        self.objects.write().unwrap_or_else(PoisonError::into_inner).remove(id).is_some()
    }

    /// All objects, ordered by id.
    pub fn all(&self) -> Vec<Arc<T>> {
        self.select(|_| true)
    }

    /// Some of them, chosen by what never changes: it is looked at under the registry's lock.
    pub fn select(&self, is_wanted: impl Fn(&T) -> bool) -> Vec<Arc<T>> {
        let objects = self.objects.read().unwrap_or_else(PoisonError::into_inner);
        objects.values().filter(|object| is_wanted(object)).cloned().collect()
    }

    /// The object of an id, or of the unambiguous beginning of one.
    pub fn get(&self, id: &str) -> Result<Arc<T>, Error> {
        self.find(id)?.ok_or_else(|| Error::NotFound { what: self.what, id: id.to_owned() })
    }

    /// As [`Self::get`], where the unknown is no error.
    pub fn find(&self, id: &str) -> Result<Option<Arc<T>>, Error> {
        if id.is_empty() {
            return Err(Error::Invalid(format!("the id of a {} must not be empty", self.what)));
        }
        let objects = self.objects.read().unwrap_or_else(PoisonError::into_inner);
        let mut fitting = objects
            .range::<str, _>((Bound::Included(id), Bound::Unbounded))
            .take_while(|(key, _)| key.starts_with(id));
        let first = fitting.next();
        // The whole id sorts before all that merely begin with it.
        if first.is_some_and(|(key, _)| key != id) && fitting.next().is_some() {
            return Err(Error::Ambiguous { what: self.what, prefix: id.to_owned() });
        }
        Ok(first.map(|(_, object)| object.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    #[test]
    fn the_beginning_of_an_id_is_enough_where_it_fits_only_one() {
        let registry = Registry::new("container");
        for id in ["abc1", "abc2", "abcd", "x", "xy"] {
            registry.insert(id, Arc::new(id.to_owned()));
        }
        assert_eq!(*registry.get("abc2").unwrap(), "abc2");
        assert_eq!(*registry.get("abcd").unwrap(), "abcd");
        assert_eq!(registry.get("abc").unwrap_err().kind(), Kind::InvalidArgument);
        assert_eq!(*registry.get("x").unwrap(), "x");
        assert_eq!(registry.get("z").unwrap_err().kind(), Kind::NotFound);
        assert!(registry.find("z").unwrap().is_none());
        assert_eq!(registry.get("").unwrap_err().kind(), Kind::InvalidArgument);
        assert!(registry.remove("x") && !registry.remove("x"));
    }
}
