//! Where clients join a container's process: each gets its live output, and may write to its input. The log is whole
//! and waits for nobody for long: who is too slow is cut off.

mod backlog;
mod inlet;
mod outlet;
mod patience;

use std::sync::Arc;

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

pub use self::{backlog::Backlog, inlet::Inlet};
use self::{
    outlet::{Outlet, Tee},
    patience::MOST,
};
use super::{Opened, Sink};

/// Clients at once: each may have a backlog.
pub const MOST_CLIENTS: usize = 64;

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
            let (inlet, stdin) = Inlet::open(input == Input::AttachedOnce);
            opened.stdin = Some(Box::pin(stdin));
            inlet
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
        self.stdout.wait_until(last);
        self.stderr.wait_until(last);
    }

    /// The process has ended, and all that it wrote has been handed on.
    pub fn end(&self) {
        self.stdout.end();
        self.stderr.end();
        self.ended.cancel();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::{
        backlog::{AT_ONCE, BACKLOG_BYTES, PIECE},
        *,
    };

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
