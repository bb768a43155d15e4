//! Tokens: the right to come once for what a CRI call asked for.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use crate::{error::Error, node::ids::new_id};

/// How long a client has.
const LIFE: Duration = Duration::from_secs(60);
/// Tokens that may wait at once.
const MOST: usize = 1000;

/// The tokens that wait for their clients, with what each is for.
#[derive(Debug)]
pub struct Tokens<R>(Mutex<HashMap<String, Waiting<R>>>);

#[derive(Debug)]
struct Waiting<R> {
    kind: &'static str,
    request: R,
    until: Instant,
}

impl<R> Default for Tokens<R> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<R> Tokens<R> {
    /// A new token of 256 bits, for a request.
    ///
    /// # Errors
    /// Too many wait, or there is no randomness.
    pub fn issue(&self, kind: &'static str, request: R) -> Result<String, Error> {
        let token = new_id()?;
        let now = Instant::now();
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // What nobody came for holds on to its container.
        waiting.retain(|_, waiting| waiting.until > now);
        if waiting.len() >= MOST {
            return Err(Error::Crowded {
                what: "requests for exec, attach and port-forward whose clients have not come",
                most: MOST,
            });
        }
        waiting.insert(token.clone(), Waiting { kind, request, until: now + LIFE });
        Ok(token)
    }

    /// Takes a request out, if the token is one of that kind and in time, and the check passes. Any other token stays
    /// what it was.
    ///
    /// # Errors
    /// The check's.
    pub fn take<E>(
        &self,
        kind: &str,
        token: &str,
        check: impl FnOnce(&R) -> Result<(), E>,
    ) -> Result<Option<R>, E> {
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match waiting.get(token) {
            Some(found) if found.kind == kind && found.until > Instant::now() => check(&found.request)?,
            _ => return Ok(None),
        }
        Ok(waiting.remove(token).map(|taken| taken.request))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_token_is_good_once_for_its_kind_and_for_a_minute() {
        let tokens = Tokens::<u32>::default();
        let take = |kind, token| tokens.take(kind, token, |_| Ok::<(), ()>(())).unwrap();
        let token = tokens.issue("portforward", 7).unwrap();
        assert!(token.len() >= 32);
        assert!(take("exec", &token).is_none(), "of another kind");
        assert!(take("portforward", "guessed").is_none());
        assert_eq!(tokens.take("portforward", &token, |seven| Err::<(), u32>(*seven)), Err(7));
        assert!(take("portforward", &token).is_some(), "and not burnt by that");
        assert!(take("portforward", &token).is_none(), "used");

        let late = tokens.issue("portforward", 7).unwrap();
        tokio::time::advance(LIFE + Duration::from_millis(1)).await;
        assert!(take("portforward", &late).is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn the_table_is_bounded_and_empties_itself() {
        let tokens = Tokens::<u32>::default();
        for _ in 0..MOST {
            tokens.issue("portforward", 7).unwrap();
        }
        assert!(tokens.issue("portforward", 7).is_err());
        tokio::time::advance(LIFE + Duration::from_millis(1)).await;
        tokens.issue("portforward", 7).unwrap();
    }
}
