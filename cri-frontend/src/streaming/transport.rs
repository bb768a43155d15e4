//! The connection below a session's streams, as a task of its own.

use std::{sync::Mutex, sync::PoisonError, time::Duration};

use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

/// What is still on its way to the client when a session is over has this long.
const LAST_BYTES: Duration = Duration::from_secs(10);

/// A running connection. Dropping it closes it.
#[derive(Debug)]
pub struct Transport {
    driver: AbortOnDropHandle<()>,
    /// What else the client's going shows in.
    signs: Vec<AbortOnDropHandle<()>>,
    gone: CancellationToken,
}

impl Transport {
    /// Runs a connection until it ends.
    pub fn run(driver: impl Future<Output = ()> + Send + 'static) -> Self {
        let gone = CancellationToken::new();
        let ended = gone.clone();
        let driver = AbortOnDropHandle::new(tokio::spawn(async move {
            driver.await;
            ended.cancel();
        }));
        Self { driver, signs: Vec::new(), gone }
    }

    /// Cancelled when the connection has ended: the client has gone.
    pub fn gone(&self) -> CancellationToken {
        self.gone.clone()
    }

    /// Takes the end of something else for the client's going too.
    pub fn ends_with(&mut self, sign: impl Future<Output = ()> + Send + 'static) {
        let gone = self.gone.clone();
        self.signs.push(AbortOnDropHandle::new(tokio::spawn(async move {
            sign.await;
            gone.cancel();
        })));
    }

    /// Waits until what was sent has been written. The streams must have been let go.
    pub async fn finish(self) {
        drop(self.signs);
        // A client that does not read does not get the rest.
        let _ = timeout(LAST_BYTES, self.driver).await;
    }
}

/// When something happened last, for connections that end when nothing does.
#[derive(Debug)]
pub struct Activity {
    last: Mutex<Instant>,
    timeout: Duration,
}

impl Activity {
    /// Just now.
    pub fn new(timeout: Duration) -> Self {
        Self { last: Mutex::new(Instant::now()), timeout }
    }

    /// Something happened.
    pub fn note(&self) {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    /// Waits until nothing has happened for the whole time-out.
    pub async fn idle(&self) {
        loop {
            let until = *self.last.lock().unwrap_or_else(PoisonError::into_inner) + self.timeout;
            if Instant::now() >= until {
                return;
            }
            sleep_until(until).await;
        }
    }
}
