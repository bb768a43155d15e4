//! What was acquired and must be released, in reverse, where a later step fails.

use std::time::Duration;

use futures::future::BoxFuture;
use tokio::time::timeout;

use crate::error::Error;

/// The undo steps of a work in progress. Each has a deadline of its own, never the caller's.
#[derive(Default)]
pub struct UndoStack {
    steps: Vec<(&'static str, BoxFuture<'static, Result<(), Error>>)>,
}

/// An undo step that failed: what it should have released is still there.
#[derive(Debug)]
pub struct NotUndone {
    /// The step, in words.
    pub step: &'static str,
    /// Why.
    pub error: Error,
}

impl UndoStack {
    /// Adds the step that undoes what is about to be done. It must cope with that never having begun.
    pub fn push<F>(&mut self, step: &'static str, undo: F)
    where
        F: Future<Output = Result<(), Error>> + Send + 'static,
    {
        self.steps.push((step, Box::pin(undo)));
    }

    /// Undoes everything, the last first; a failing step does not keep the others from being tried.
    pub async fn undo(self, bound: Duration) -> Vec<NotUndone> {
        let mut failures = Vec::new();
        for (step, undo) in self.steps.into_iter().rev() {
            let result = timeout(bound, undo)
                .await
                .unwrap_or_else(|_| Err(Error::Timeout { what: step.to_owned(), bound }));
            if let Err(error) = result {
                failures.push(NotUndone { step, error });
            }
        }
        failures
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn steps_are_undone_in_reverse_and_past_failures() {
        let done = Arc::new(Mutex::new(Vec::new()));
        let mut stack = UndoStack::default();
        for step in ["first", "second", "third"] {
            let done = done.clone();
            stack.push(step, async move {
                done.lock().unwrap().push(step);
                if step == "second" { Err(Error::Invalid("broken".into())) } else { Ok(()) }
            });
        }
        stack.push("hangs", std::future::pending());
        let failures = stack.undo(Duration::from_secs(5)).await;
        assert_eq!(*done.lock().unwrap(), ["third", "second", "first"]);
        let steps: Vec<_> = failures.iter().map(|failure| failure.step).collect();
        assert_eq!(steps, ["hangs", "second"]);
    }

    #[tokio::test]
    async fn a_stack_that_is_dropped_undoes_nothing() {
        let mut stack = UndoStack::default();
        stack.push("never", async { panic!("undone although all went well") });
        drop(stack);
    }
}
