//! The way of a process's output to where it goes anyway, and to those who attach.

use std::{
    io,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    task::{Context, Poll, ready},
};

use futures::{FutureExt as _, future::join_all};
use tokio::{io::AsyncWrite, time::Instant};

use super::backlog::Backlog;
use crate::io::Sink;

/// Those who want one of a process's outputs.
#[derive(Debug, Default)]
pub(super) struct Outlet {
    listeners: Mutex<Listeners>,
    /// After this nobody is waited for: the process has ended, and the log is to be whole soon.
    last_wait: OnceLock<Instant>,
}

#[derive(Debug, Default)]
struct Listeners {
    ended: bool,
    backlogs: Vec<Arc<Backlog>>,
}

impl Outlet {
    fn lock(&self) -> MutexGuard<'_, Listeners> {
        self.listeners.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn subscribe(&self) -> Arc<Backlog> {
        let backlog = Arc::<Backlog>::default();
        let mut listeners = self.lock();
        if listeners.ended {
            backlog.end();
        } else {
            listeners.backlogs.push(backlog.clone());
        }
        backlog
    }

    /// Waits for nobody after this. The first word stands.
    pub fn wait_until(&self, last: Instant) {
        let _ = self.last_wait.set(last);
    }

    fn offer(&self, bytes: &[u8]) {
        self.lock().backlogs.retain(|backlog| backlog.offer(bytes));
    }

    /// Those who have no room for more.
    fn full(&self) -> Vec<Arc<Backlog>> {
        self.lock().backlogs.iter().filter(|backlog| backlog.is_full()).cloned().collect()
    }

    pub fn end(&self) {
        let mut listeners = self.lock();
        listeners.ended = true;
        for backlog in listeners.backlogs.drain(..) {
            backlog.end();
        }
    }
}

/// Writes to where an output goes anyway, and offers the same bytes to the listeners.
pub(super) struct Tee {
    /// None where there is nothing, or after it failed: the process must not notice.
    main: Option<Sink>,
    outlet: Arc<Outlet>,
    /// Until the listeners have room for more.
    catching_up: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

impl Tee {
    pub fn new(main: Option<Sink>, outlet: Arc<Outlet>) -> Self {
        Self { main, outlet, catching_up: None }
    }

    fn poll_caught_up(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if self.catching_up.is_none() {
            let full = self.outlet.full();
            if full.is_empty() {
                return Poll::Ready(());
            }
            let last = self.outlet.last_wait.get().copied();
            // All at once: each spends what is its own.
            let waits = join_all(full.into_iter().map(|backlog| backlog.catch_up(last)));
            self.catching_up = Some(Box::pin(waits.map(drop)));
        }
        if let Some(catching_up) = &mut self.catching_up {
            ready!(catching_up.as_mut().poll(context));
            self.catching_up = None;
        }
        Poll::Ready(())
    }
}

impl AsyncWrite for Tee {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let mut count = bytes.len();
        if let Some(main) = &mut self.main {
            match ready!(main.as_mut().poll_write(context, bytes)) {
                Ok(written) => count = written,
                Err(error) => {
                    tracing::debug!(%error, "nobody reads any more but those who attach");
                    self.main = None;
                }
            }
        }
        self.outlet.offer(&bytes[..count]);
        Poll::Ready(Ok(count))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Some(main) = &mut self.main
            && ready!(main.as_mut().poll_flush(context)).is_err()
        {
            self.main = None;
        }
        self.poll_caught_up(context).map(Ok)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.outlet.end();
        match &mut self.main {
            Some(main) => main.as_mut().poll_shutdown(context),
            None => Poll::Ready(Ok(())),
        }
    }
}
