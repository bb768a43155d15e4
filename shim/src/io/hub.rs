//! Where clients join a container's process: each gets its live output, and may write to its input. The log is whole
//! and waits for nobody for long: who is too slow is cut off.

use std::{
    io,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    task::{Context, Poll, ready},
};

use bytes::{Bytes, BytesMut};
use futures::{FutureExt as _, future::join_all};
use tokio::{
    io::{AsyncWrite, AsyncWriteExt, DuplexStream, duplex},
    sync::{Notify, OwnedSemaphorePermit, Semaphore},
    time::{Instant, timeout_at},
};
use tokio_util::sync::CancellationToken;

use super::{
    Opened, Sink,
    patience::{MOST, Patience},
};

/// How far a client may fall behind.
const BACKLOG_BYTES: usize = 4 << 20;
/// What comes between two flushes, at most. A client who has no room for that is waited for, as long as it has patience
/// left: a process may write faster than any client takes it, for a moment.
const AT_ONCE: usize = 256 * 1024;
/// What a client takes at once, at most.
const PIECE: usize = 1 << 20;
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
    /// Places itself between a process's streams and where they go anyway. Bytes that nobody wants are read all the same,
    /// or the process would wait.
    pub fn join(mut opened: Opened, input: Input, terminal: bool) -> (Self, Opened) {
        let (stdout, stderr) = (Arc::<Outlet>::default(), Arc::<Outlet>::default());
        let inlet = (input != Input::None).then(|| {
            let (near, far) = duplex(INPUT_BYTES);
            opened.stdin = Some(Box::pin(far));
            Inlet { pipe: tokio::sync::Mutex::new(Some(near)), once: input == Input::AttachedOnce }
        });
        let tee = |main, outlet: &Arc<Outlet>| Some(Box::pin(Tee::new(main, outlet.clone())) as Sink);
        opened.stdout = tee(opened.stdout, &stdout);
        opened.stderr = if terminal { None } else { tee(opened.stderr, &stderr) };
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

    /// The process has ended, and what it wrote is still being handed on.
    pub fn hurry(&self) {
        let last = Instant::now() + MOST;
        for outlet in [&self.stdout, &self.stderr] {
            // The first word stands.
            let _ = outlet.last_wait.set(last);
        }
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
struct Outlet {
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

    /// Those who have no room for more.
    fn full(&self) -> Vec<Arc<Backlog>> {
        self.lock().backlogs.iter().filter(|backlog| backlog.is_full()).cloned().collect()
    }

    fn end(&self) {
        let mut listeners = self.lock();
        listeners.ended = true;
        for backlog in listeners.backlogs.drain(..) {
            backlog.end();
        }
    }
}

impl BacklogState {
    /// He gets what he has yet to read, and then the end: a hole in the middle would go unnoticed.
    fn cut_off(&mut self) {
        self.cut_off = true;
        self.ended = true;
    }
}

/// What one client has yet to read of an output.
#[derive(Debug, Default)]
pub struct Backlog {
    state: Mutex<BacklogState>,
    changed: Notify,
    taken: Notify,
}

#[derive(Debug, Default)]
struct BacklogState {
    bytes: BytesMut,
    ended: bool,
    cut_off: bool,
    left: bool,
    patience: Patience,
}

impl Backlog {
    fn lock(&self) -> MutexGuard<'_, BacklogState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds bytes; says whether the client still listens.
    fn offer(&self, bytes: &[u8]) -> bool {
        let mut state = self.lock();
        if state.left || state.ended {
            return false;
        }
        let fits = state.bytes.len() + bytes.len() <= BACKLOG_BYTES;
        if fits {
            state.bytes.extend_from_slice(bytes);
        } else {
            state.cut_off();
        }
        drop(state);
        self.changed.notify_one();
        fits
    }

    fn is_full(&self) -> bool {
        let state = self.lock();
        !state.left && !state.ended && state.bytes.len() > BACKLOG_BYTES - AT_ONCE
    }

    /// Waits until the client has room. It is cut off when its patience is spent, or at the time given.
    async fn catch_up(self: Arc<Self>, last: Option<Instant>) {
        let begun = Instant::now();
        let until = begun + self.lock().patience.left();
        let room = async {
            while self.is_full() {
                self.taken.notified().await;
            }
        };
        let caught_up = timeout_at(last.map_or(until, |last| until.min(last)), room).await;
        let mut state = self.lock();
        state.patience.spend(begun.elapsed());
        if caught_up.is_err() {
            state.cut_off();
            self.changed.notify_one();
        }
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
        drop(state);
        self.taken.notify_one();
    }

    /// What has come since; none at the end. Cancel-safe.
    pub async fn next(&self) -> Option<Bytes> {
        loop {
            {
                let mut state = self.lock();
                if !state.bytes.is_empty() {
                    self.taken.notify_one();
                    let count = state.bytes.len().min(PIECE);
                    return Some(state.bytes.split_to(count).freeze());
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
    /// None where there is nothing, or after it failed: the process must not notice.
    main: Option<Sink>,
    outlet: Arc<Outlet>,
    /// Until the listeners have room for more.
    catching_up: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

impl Tee {
    fn new(main: Option<Sink>, outlet: Arc<Outlet>) -> Self {
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::AsyncReadExt;

    use super::*;

    fn hub(input: Input) -> (Hub, Opened) {
        let opened = Opened { stdin: None, stdout: None, stderr: None, log: None };
        Hub::join(opened, input, false)
    }

    #[tokio::test]
    async fn each_client_gets_what_comes_after_it_and_the_end() {
        let (hub, opened) = hub(Input::None);
        let mut stdout = opened.stdout.unwrap();
        let early = hub.stdout();
        stdout.write_all(b"one ").await.unwrap();
        let late = hub.stdout();
        stdout.write_all(b"two").await.unwrap();
        assert_eq!(early.next().await.unwrap(), "one two");
        assert_eq!(late.next().await.unwrap(), "two");
        stdout.shutdown().await.unwrap();
        assert_eq!(early.next().await, None);
        assert_eq!(hub.stdout().next().await, None, "after the end");
    }

    #[tokio::test]
    async fn a_slow_client_is_cut_off_and_holds_nobody_up() {
        let (hub, opened) = hub(Input::None);
        let mut stdout = opened.stdout.unwrap();
        let (slow, quick) = (hub.stdout(), hub.stdout());
        let chunk = vec![7; 1 << 20];
        for _ in 0..6 {
            stdout.write_all(&chunk).await.unwrap();
            assert_eq!(quick.next().await.unwrap().len(), chunk.len());
        }
        let mut got = 0;
        while let Some(bytes) = slow.next().await {
            got += bytes.len();
        }
        assert_eq!(got, BACKLOG_BYTES);
        assert!(slow.is_cut_off() && !quick.is_cut_off());
    }

    /// Reads to the end, a piece and a pause at a time; says how much came, and whether all of it.
    async fn read_slowly(client: Arc<Backlog>, pause: Duration) -> (usize, bool) {
        let mut got = 0;
        while let Some(bytes) = client.next().await {
            got += bytes.len();
            tokio::time::sleep(pause).await;
        }
        (got, !client.is_cut_off())
    }

    /// Writes as fast as the clients allow; says how much.
    async fn write(stdout: &mut Sink, bytes: usize) -> usize {
        let chunk = vec![7; AT_ONCE];
        for _ in 0..bytes / AT_ONCE {
            stdout.write_all(&chunk).await.unwrap();
            stdout.flush().await.unwrap();
        }
        bytes
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_is_waited_for_a_second_in_all_and_another_costs_it_nothing() {
        let (hub, opened) = hub(Input::None);
        let mut stdout = opened.stdout.unwrap();
        let stuck = [hub.stdout(), hub.stdout()];
        let steady = tokio::spawn(read_slowly(hub.stdout(), MOST / 2));
        let quick = tokio::spawn(read_slowly(hub.stdout(), MOST / 100));
        let start = Instant::now();
        let count = write(&mut stdout, 64 << 20).await;
        // The two that are stuck at the same time, then the steady one, and the quick one's 64 pauses.
        assert!(start.elapsed() < 3 * MOST, "{:?}", start.elapsed());
        stdout.shutdown().await.unwrap();
        assert!(stuck.iter().all(|client| client.is_cut_off()));
        let (got, whole) = steady.await.unwrap();
        assert!(!whole && (BACKLOG_BYTES..count / 4).contains(&got), "{got}");
        assert_eq!(quick.await.unwrap(), (count, true));
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_falls_behind_now_and_then_is_waited_for_each_time() {
        let (hub, opened) = hub(Input::None);
        let mut stdout = opened.stdout.unwrap();
        let reading = tokio::spawn(read_slowly(hub.stdout(), MOST / 4));
        let mut count = 0;
        for _ in 0..10 {
            count += write(&mut stdout, BACKLOG_BYTES + 2 * PIECE).await;
            tokio::time::sleep(10 * MOST).await;
        }
        stdout.shutdown().await.unwrap();
        assert_eq!(reading.await.unwrap(), (count, true));
    }

    #[tokio::test]
    async fn a_log_that_fails_costs_the_clients_nothing() {
        let (broken, other) = tokio::io::duplex(1);
        drop(other);
        let opened = Opened { stdin: None, stdout: Some(Box::pin(broken)), stderr: None, log: None };
        let (hub, opened) = Hub::join(opened, Input::None, false);
        let mut stdout = opened.stdout.unwrap();
        let client = hub.stdout();
        stdout.write_all(b"on").await.unwrap();
        stdout.write_all(b"ward").await.unwrap();
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
