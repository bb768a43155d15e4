//! The future that moves a session's frames.

use std::{future::pending, sync::Arc, time::Duration};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, split},
    select,
    time::{Instant, sleep_until, timeout},
};

use super::{reader::Reader, state::Shared, writer::Writer};
use crate::{
    config::Config,
    error::{Ended, SessionError},
    frame::GoAwayStatus,
};

/// How long a peer may take to read our GOAWAY and to close its end.
const FAREWELL: Duration = Duration::from_secs(5);

/// Reads and writes a session's connection. Nothing of the session moves unless this is polled; dropping it closes the
/// connection and fails all streams.
#[must_use = "a session moves only while its driver runs"]
#[derive(Debug)]
pub struct Driver<C> {
    connection: C,
    config: Config,
    end: End,
}

impl<C: AsyncRead + AsyncWrite> Driver<C> {
    pub(super) fn new(connection: C, config: &Config, shared: Arc<Shared>) -> Self {
        Self { connection, config: config.clone(), end: End(shared) }
    }

    /// Runs the session to its end, with a GOAWAY to the peer where it can still hear one.
    ///
    /// After the last frame the connection is read for a moment more, until the peer closes it: closing it over
    /// unread bytes would reset it, and the peer might lose what we sent last.
    ///
    /// # Errors
    /// The peer broke the protocol, the connection failed, or the session was idle for too long.
    pub async fn run(self) -> Result<Ended, SessionError> {
        let shared = self.end.0.clone();
        let (read_half, write_half) = split(self.connection);
        let mut reader = Reader::new(read_half, &self.config, shared.clone());
        let mut writer = Writer::new(write_half, shared.clone())?;
        let outcome = select! {
            outcome = reader.run() => outcome,
            outcome = writer.run() => outcome.map(|()| Ended::Finished),
            error = idle(&shared, self.config.idle_timeout) => Err(error),
        };
        drop(self.end);
        let farewell = match &outcome {
            Ok(Ended::Finished) => Some(GoAwayStatus::Ok),
            Ok(Ended::ByPeer) => None,
            Err(error) => error.go_away(),
        };
        if let Some(status) = farewell {
            // If the peer does not hear it, it sees the connection end.
            let _ = timeout(FAREWELL, async {
                writer.go_away(status).await?;
                drain(&mut reader.into_inner()).await
            })
            .await;
        }
        outcome
    }
}

/// Fails all streams when it is dropped, be it by the session's end or with the driver.
#[derive(Debug)]
struct End(Arc<Shared>);

impl Drop for End {
    fn drop(&mut self) {
        self.0.lock().end();
    }
}

async fn idle(shared: &Shared, limit: Option<Duration>) -> SessionError {
    let Some(limit) = limit else { pending().await };
    loop {
        let last = shared.lock().last_activity();
        // A limit beyond what the clock can say is none.
        let Some(due) = last.checked_add(limit) else { pending().await };
        if Instant::now() >= due {
            return SessionError::Idle(limit);
        }
        sleep_until(due).await;
    }
}

async fn drain<R: AsyncRead + Unpin>(connection: &mut R) -> std::io::Result<()> {
    let mut scratch = vec![0; 16 << 10];
    while connection.read(&mut scratch).await? > 0 {}
    Ok(())
}
