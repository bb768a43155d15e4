//! The connection below a session's streams, as a task of its own.

use std::{
    future::pending,
    io,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, sleep_until},
};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

/// When a session is over, what is still on its way to the client is waited for until nothing moves for this long.
const LAST_SILENCE: Duration = Duration::from_secs(10);

/// A running connection. Dropping it closes it.
#[derive(Debug)]
pub struct Transport {
    driver: AbortOnDropHandle<()>,
    /// What else the client's going shows in.
    signs: Vec<AbortOnDropHandle<()>>,
    gone: CancellationToken,
    writing: Arc<Activity>,
}

impl Transport {
    /// Runs what drives a connection until that ends; `writing` is what [`Watched`] notes.
    pub fn run(driver: impl Future<Output = ()> + Send + 'static, writing: Arc<Activity>) -> Self {
        let gone = CancellationToken::new();
        let ended = gone.clone();
        let driver = AbortOnDropHandle::new(tokio::spawn(async move {
            driver.await;
            ended.cancel();
        }));
        Self { driver, signs: Vec::new(), gone, writing }
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

    /// Does a last thing as long as the client takes bytes. None where it has stopped to.
    pub async fn patiently<T>(&self, last: impl Future<Output = T>) -> Option<T> {
        self.writing.note();
        tokio::select! { done = last => Some(done), () = self.writing.idle() => None }
    }

    /// Waits until what was sent has been written. The streams must have been let go.
    pub async fn finish(self) {
        let Self { driver, writing, signs, .. } = self;
        // They have a hold of streams, without whose end the connection has none.
        drop(signs);
        writing.note();
        // A client that does not read does not get the rest.
        tokio::select! { _ = driver => {} () = writing.idle() => {} }
    }
}

/// A connection of which each write is noted.
#[derive(Debug)]
pub struct Watched<C> {
    connection: C,
    writing: Arc<Activity>,
}

impl<C> Watched<C> {
    /// A connection, and where its writes are noted.
    pub fn new(connection: C) -> (Self, Arc<Activity>) {
        let writing = Arc::new(Activity::new(LAST_SILENCE));
        (Self { connection, writing: writing.clone() }, writing)
    }
}

impl<C: AsyncRead + Unpin> AsyncRead for Watched<C> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.connection).poll_read(context, buffer)
    }
}

impl<C: AsyncWrite + Unpin> AsyncWrite for Watched<C> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.connection).poll_write(context, bytes));
        self.writing.note();
        Poll::Ready(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.connection).poll_write_vectored(context, slices));
        self.writing.note();
        Poll::Ready(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.connection.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.connection).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.connection).poll_shutdown(context)
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
            let last = *self.last.lock().unwrap_or_else(PoisonError::into_inner);
            // A time-out beyond what the clock can say is none.
            let Some(until) = last.checked_add(self.timeout) else { return pending().await };
            if Instant::now() >= until {
                return;
            }
            sleep_until(until).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt, duplex},
        time::sleep,
    };

    use super::*;

    /// A minute's worth of bytes for a client that takes some each second, and then none.
    fn last_bytes() -> (tokio::io::DuplexStream, Transport) {
        let (client, connection) = duplex(10);
        let (mut connection, writing) = Watched::new(connection);
        let driver = async move {
            let _ = connection.write_all(&[7; 600]).await;
        };
        (client, Transport::run(driver, writing))
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_client_gets_all_and_a_stuck_one_is_left() {
        let (mut client, transport) = last_bytes();
        let reading = tokio::spawn(async move {
            let (mut got, mut some) = (0, [0; 10]);
            while let Ok(count @ 1..) = client.read(&mut some).await {
                got += count;
                sleep(Duration::from_secs(1)).await;
            }
            got
        });
        transport.finish().await;
        assert_eq!(reading.await.unwrap(), 600);

        let (_stuck, transport) = last_bytes();
        let start = Instant::now();
        transport.finish().await;
        assert_eq!(start.elapsed(), LAST_SILENCE);
    }

    #[tokio::test(start_paused = true)]
    async fn a_sign_that_has_hold_of_a_stream_does_not_keep_the_connection() {
        let (_client, connection) = duplex(10);
        let (_connection, writing) = Watched::new(connection);
        let (stream, released) = tokio::sync::oneshot::channel::<()>();
        let mut transport = Transport::run(async move { drop(released.await) }, writing);
        transport.ends_with(async move {
            let _stream = stream;
            pending::<()>().await;
        });
        let start = Instant::now();
        transport.finish().await;
        assert!(start.elapsed() < LAST_SILENCE);
    }

    #[tokio::test(start_paused = true)]
    async fn the_longest_time_out_is_none() {
        let activity = Activity::new(Duration::from_secs(i64::MAX.unsigned_abs()));
        tokio::time::timeout(Duration::from_secs(3600), activity.idle()).await.unwrap_err();
    }
}
