//! Where clients join a container's process: each gets its live output, and may write to its input. The log is whole
//! and waits for nobody: who is too slow is cut off.

use std::{
    io,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, ready},
};

use bytes::{Bytes, BytesMut};
use tokio::{
    io::{AsyncWrite, AsyncWriteExt, DuplexStream, duplex},
    sync::{Notify, OwnedSemaphorePermit, Semaphore},
};
use tokio_util::sync::CancellationToken;

use super::{Opened, Sink};

/// How far a client may fall behind.
const BACKLOG_BYTES: usize = 4 << 20;
/// Clients at once: each may have a backlog.
pub const MOST_CLIENTS: usize = 64;
/// What clients have written and the process has not read.
const INPUT_BYTES: usize = 64 * 1024;

/// Where a container's input comes from when it has no stream of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Input {
    /// It has a stream of its own, or none.
    None,
    /// From those who attach.
    Attached,
    /// From the first who attaches: when he has ended, so has the input.
    AttachedOnce,
}

/// A container's meeting place.
#[derive(Debug)]
pub struct Hub {
    stdout: Arc<Outlet>,
    stderr: Arc<Outlet>,
    input: Option<Inlet>,
    places: Arc<Semaphore>,
    ended: CancellationToken,
}

impl Hub {
    /// Places itself between a process's streams and where they go anyway.
    pub fn join(mut opened: Opened, input: Input) -> (Self, Opened) {
        let (stdout, stderr) = (Arc::<Outlet>::default(), Arc::<Outlet>::default());
        let inlet = (input != Input::None).then(|| {
            let (near, far) = duplex(INPUT_BYTES);
            opened.stdin = Some(Box::pin(far));
            Inlet { pipe: tokio::sync::Mutex::new(Some(near)), once: input == Input::AttachedOnce }
        });
        opened.stdout = Box::pin(Tee { main: Some(opened.stdout), outlet: stdout.clone() });
        opened.stderr =
            opened.stderr.map(|main| Box::pin(Tee { main: Some(main), outlet: stderr.clone() }) as Sink);
        let places = Arc::new(Semaphore::new(MOST_CLIENTS));
        (Self { stdout, stderr, input: inlet, places, ended: CancellationToken::new() }, opened)
    }

    /// A client's place; none where there are too many.
    pub fn place(&self) -> Option<Arc<OwnedSemaphorePermit>> {
        self.places.clone().try_acquire_owned().ok().map(Arc::new)
    }

    /// Its output from now on.
    pub fn stdout(&self) -> Arc<Backlog> {
        self.stdout.subscribe()
    }

    /// Its errors from now on.
    pub fn stderr(&self) -> Arc<Backlog> {
        self.stderr.subscribe()
    }

    /// Its input, where clients can write to it.
    pub fn input(&self) -> Option<&Inlet> {
        self.input.as_ref()
    }

    /// Cancelled when the process has ended.
    pub fn ended(&self) -> &CancellationToken {
        &self.ended
    }

    /// The process has ended, and all that it wrote has been handed on.
    pub fn end(&self) {
        self.stdout.end();
        self.stderr.end();
        self.ended.cancel();
    }
}

/// The input of a process.
#[derive(Debug)]
pub struct Inlet {
    pipe: tokio::sync::Mutex<Option<DuplexStream>>,
    once: bool,
}

impl Inlet {
    /// Hands bytes on, as fast as the process reads.
    ///
    /// # Errors
    /// The input has ended.
    pub async fn write(&self, bytes: &[u8]) -> io::Result<()> {
        match self.pipe.lock().await.as_mut() {
            Some(pipe) => pipe.write_all(bytes).await,
            None => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }

    /// A client writes no more.
    pub async fn leave(&self) {
        if self.once
            && let Some(mut pipe) = self.pipe.lock().await.take()
        {
            // A reader that has gone needs no end.
            let _ = pipe.shutdown().await;
        }
    }
}

/// Those who want one of a process's outputs.
#[derive(Debug, Default)]
struct Outlet(Mutex<Listeners>);

#[derive(Debug, Default)]
struct Listeners {
    ended: bool,
    backlogs: Vec<Arc<Backlog>>,
}

impl Outlet {
    fn lock(&self) -> MutexGuard<'_, Listeners> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn subscribe(&self) -> Arc<Backlog> {
        let backlog = Arc::<Backlog>::default();
        let mut listeners = self.lock();
        if listeners.ended {
            backlog.end();
        } else {
            listeners.backlogs.push(backlog.clone());
        }
        backlog
    }

    fn offer(&self, bytes: &[u8]) {
        self.lock().backlogs.retain(|backlog| backlog.offer(bytes));
    }

    fn end(&self) {
        let mut listeners = self.lock();
        listeners.ended = true;
        for backlog in listeners.backlogs.drain(..) {
            backlog.end();
        }
    }
}

/// What one client has yet to read of an output.
#[derive(Debug, Default)]
pub struct Backlog {
    state: Mutex<BacklogState>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct BacklogState {
    bytes: BytesMut,
    ended: bool,
    cut_off: bool,
    left: bool,
}

impl Backlog {
    fn lock(&self) -> MutexGuard<'_, BacklogState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds bytes; says whether the client still listens.
    fn offer(&self, bytes: &[u8]) -> bool {
        let mut state = self.lock();
        if state.left {
            return false;
        }
        let fits = state.bytes.len() + bytes.len() <= BACKLOG_BYTES;
        if fits {
            state.bytes.extend_from_slice(bytes);
        } else {
            // He gets what he has yet to read, and then the end: a hole in the middle would go unnoticed.
            state.cut_off = true;
            state.ended = true;
        }
        drop(state);
        self.changed.notify_one();
        fits
    }

    fn end(&self) {
        self.lock().ended = true;
        self.changed.notify_one();
    }

    /// Whether its end came before that of the output.
    pub fn is_cut_off(&self) -> bool {
        self.lock().cut_off
    }

    /// The client wants no more.
    pub fn leave(&self) {
        let mut state = self.lock();
        state.left = true;
        state.bytes = BytesMut::new();
    }

    /// What has come since; none at the end. Cancel-safe.
    pub async fn next(&self) -> Option<Bytes> {
        loop {
            {
                let mut state = self.lock();
                if !state.bytes.is_empty() {
                    return Some(state.bytes.split().freeze());
                }
                if state.ended {
                    return None;
                }
            }
            self.changed.notified().await;
        }
    }
}

/// Writes to where an output goes anyway, and offers the same bytes to the listeners.
struct Tee {
    /// None after it failed: the process must not notice.
    main: Option<Sink>,
    outlet: Arc<Outlet>,
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
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.outlet.end();
        match &mut self.main {
            Some(main) => main.as_mut().poll_shutdown(context),
            None => Poll::Ready(Ok(())),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;

    use super::*;

    fn hub(input: Input) -> (Hub, Opened) {
        let main: Sink = Box::pin(tokio::io::sink());
        let opened = Opened { stdin: None, stdout: main, stderr: None, log: None };
        Hub::join(opened, input)
    }

    #[tokio::test]
    async fn each_client_gets_what_comes_after_it_and_the_end() {
        let (hub, mut opened) = hub(Input::None);
        let early = hub.stdout();
        opened.stdout.write_all(b"one ").await.unwrap();
        let late = hub.stdout();
        opened.stdout.write_all(b"two").await.unwrap();
        assert_eq!(early.next().await.unwrap(), "one two");
        assert_eq!(late.next().await.unwrap(), "two");
        opened.stdout.shutdown().await.unwrap();
        assert_eq!(early.next().await, None);
        assert_eq!(hub.stdout().next().await, None, "after the end");
    }

    #[tokio::test]
    async fn a_slow_client_is_cut_off_and_holds_nobody_up() {
        let (hub, mut opened) = hub(Input::None);
        let (slow, quick) = (hub.stdout(), hub.stdout());
        let chunk = vec![7; 1 << 20];
        for _ in 0..6 {
            opened.stdout.write_all(&chunk).await.unwrap();
            assert_eq!(quick.next().await.unwrap().len(), chunk.len());
        }
        assert_eq!(slow.next().await.unwrap().len(), BACKLOG_BYTES);
        assert_eq!(slow.next().await, None);
        assert!(slow.is_cut_off() && !quick.is_cut_off());
    }

    #[tokio::test]
    async fn a_log_that_fails_costs_the_clients_nothing() {
        let (broken, other) = tokio::io::duplex(1);
        drop(other);
        let opened = Opened { stdin: None, stdout: Box::pin(broken), stderr: None, log: None };
        let (hub, mut opened) = Hub::join(opened, Input::None);
        let client = hub.stdout();
        opened.stdout.write_all(b"on").await.unwrap();
        opened.stdout.write_all(b"ward").await.unwrap();
        assert_eq!(client.next().await.unwrap(), "onward");
    }

    #[tokio::test]
    async fn the_first_leaver_ends_an_input_that_is_for_one() {
        for (input, ends) in [(Input::AttachedOnce, true), (Input::Attached, false)] {
            let (hub, mut opened) = hub(input);
            let inlet = hub.input().unwrap();
            inlet.write(b"word").await.unwrap();
            inlet.leave().await;
            let mut stdin = opened.stdin.take().unwrap();
            let mut word = [0; 4];
            stdin.read_exact(&mut word).await.unwrap();
            assert_eq!(inlet.write(b"x").await.is_err(), ends);
        }
        assert!(hub(Input::None).0.input().is_none());
    }
}
