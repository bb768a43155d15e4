//! Where bytes come from, a pipe or a socket: little of it is read, and much goes into the file that the host has too.

use std::{
    io::{self, Cursor, Read},
    os::fd::{AsFd, BorrowedFd},
    sync::Arc,
    time::Duration,
};

use a3s_box_proto::stream::Taken;
use rustix::pipe::{fcntl_getpipe_size, fcntl_setpipe_size};
use tokio::{
    net::{tcp, unix::pipe},
    task::JoinHandle,
    time::timeout,
};

use super::bulk::{Bulk, Outcome, Siding};

/// A source that had nothing for so long is calm: the memory by which it flowed is given back.
const CALM: Duration = Duration::from_secs(1);

/// Something that can be read from, and from which pages can be taken.
pub trait Readable {
    /// Waits until it is worth a try. Cancel-safe.
    fn readable(&self) -> impl Future<Output = io::Result<()>> + Send;
    /// Reads what is there.
    fn try_read(&self, buffer: &mut [u8]) -> io::Result<usize>;
    /// Its descriptor.
    fn fd(&self) -> BorrowedFd<'_>;
    /// Gives back the memory that it keeps for what is written next.
    fn calm(&self);
}

impl Readable for pipe::Receiver {
    async fn readable(&self) -> io::Result<()> {
        self.readable().await
    }

    fn try_read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        self.try_read(buffer)
    }

    fn fd(&self) -> BorrowedFd<'_> {
        self.as_fd()
    }

    fn calm(&self) {
        // The guest's kernel frees a pipe's spare pages when its size is set, be it to what it is.
        if let Err(error) = fcntl_getpipe_size(self).and_then(|size| fcntl_setpipe_size(self, size)) {
            tracing::warn!("a pipe's spare pages are not freed: {error}");
        }
    }
}

impl Readable for tcp::ReadHalf<'_> {
    async fn readable(&self) -> io::Result<()> {
        self.readable().await
    }

    fn try_read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        self.try_read(buffer)
    }

    fn fd(&self) -> BorrowedFd<'_> {
        self.as_ref().as_fd()
    }

    fn calm(&self) {}
}

/// The bytes of a pipe or socket, in order.
#[derive(Debug)]
pub struct Flow<S> {
    source: S,
    /// What is being put into the file.
    placing: Option<JoinHandle<Outcome>>,
    /// What was taken from the source and did not get into the file.
    rest: Cursor<Vec<u8>>,
    /// Of a source that flows.
    siding: Option<Siding>,
    /// Much has come at once since the source was last calm: it was taken, or filled a buffer.
    flowed: bool,
}

impl<S: Readable> Flow<S> {
    /// Of a source from which nothing has been taken.
    pub fn new(source: S) -> Self {
        Self { source, placing: None, rest: Cursor::default(), siding: None, flowed: false }
    }

    /// Takes what comes next. Cancel-safe: what has left the source stays here until it is answered.
    pub async fn take(&mut self, bulk: &Arc<Bulk>, buffer: &mut [u8]) -> io::Result<Taken> {
        loop {
            if let Some(placing) = &mut self.placing {
                let outcome = placing.await;
                self.placing = None;
                let Outcome { placed, rest, siding } = outcome.map_err(io::Error::other)?;
                self.rest = Cursor::new(rest);
                self.siding = siding;
                if let Some(placed) = placed {
                    return Ok(Taken::Placed(placed));
                }
            }
            let count = self.rest.read(buffer)?;
            if count > 0 {
                return Ok(Taken::Read(count));
            }
            self.rest = Cursor::default();
            self.readable().await?;
            self.placing = bulk.begin(self.source.fd(), &mut self.siding);
            if self.placing.is_some() {
                self.flowed = true;
                continue;
            }
            match self.source.try_read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                read => {
                    let count = read?;
                    self.flowed |= count == buffer.len();
                    return Ok(Taken::Read(count));
                }
            }
        }
    }

    async fn readable(&mut self) -> io::Result<()> {
        if self.flowed {
            if let Ok(readable) = timeout(CALM, self.source.readable()).await {
                return readable;
            }
            self.flowed = false;
            self.siding = None;
            self.source.calm();
        }
        self.source.readable().await
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use tokio::io::AsyncWriteExt;

    use super::*;

    async fn all(mut flow: Flow<pipe::Receiver>, bulk: &Arc<Bulk>) -> (usize, usize, Vec<u8>) {
        let (mut read, mut placed, mut buffer) = (0, 0, vec![0; 50_000]);
        let mut bytes = Vec::new();
        loop {
            match flow.take(bulk, &mut buffer).await.unwrap() {
                Taken::Read(0) => return (read, placed, bytes),
                Taken::Read(count) => {
                    read += count;
                    bytes.extend_from_slice(&buffer[..count]);
                }
                Taken::Placed(part) => {
                    placed += part.len();
                    bytes.extend(bulk.bytes(&part));
                }
            }
        }
    }

    fn full_pipe() -> (pipe::Sender, pipe::Receiver) {
        let (sender, receiver) = pipe::pipe().unwrap();
        rustix::pipe::fcntl_setpipe_size(&sender, 1 << 20).unwrap();
        (sender, receiver)
    }

    #[tokio::test]
    async fn much_is_placed_and_little_is_read_in_one_order() {
        let data: Vec<u8> = (0..5_000_000u32).map(|n| (n % 251) as u8).collect();
        let bulk = Arc::new(Bulk::of(tempfile::tempfile().unwrap()));
        let (mut process, pipe) = full_pipe();
        let sent = data.clone();
        let writing = tokio::spawn(async move {
            process.write_all(&sent[..10]).await.unwrap();
            process.write_all(&sent[10..]).await.unwrap();
        });
        let (_, placed, bytes) = all(Flow::new(pipe), &bulk).await;
        writing.await.unwrap();
        assert!(bytes == data && placed > data.len() / 2, "{placed} bytes were placed");

        let (mut process, pipe) = full_pipe();
        process.write_all(&data[..60_000]).await.unwrap();
        drop(process);
        assert_eq!(all(Flow::new(pipe), &bulk).await, (60_000, 0, data[..60_000].to_vec()));
    }

    /// A pipe that tells when it is calm.
    struct Watched(pipe::Receiver, tokio::sync::Notify);

    impl Readable for &Watched {
        async fn readable(&self) -> io::Result<()> {
            self.0.readable().await
        }

        fn try_read(&self, buffer: &mut [u8]) -> io::Result<usize> {
            self.0.try_read(buffer)
        }

        fn fd(&self) -> BorrowedFd<'_> {
            self.0.as_fd()
        }

        fn calm(&self) {
            self.1.notify_one();
        }
    }

    #[tokio::test]
    async fn a_source_that_was_only_read_is_calmed_too() {
        let bulk = Arc::new(Bulk::of(tempfile::tempfile().unwrap()));
        let (mut process, pipe) = pipe::pipe().unwrap();
        let watched = Watched(pipe, tokio::sync::Notify::new());
        let mut flow = Flow::new(&watched);
        let mut buffer = [0; 1000];
        process.write_all(&[1; 1100]).await.unwrap();
        assert!(matches!(flow.take(&bulk, &mut buffer).await.unwrap(), Taken::Read(1000)));
        assert!(matches!(flow.take(&bulk, &mut buffer).await.unwrap(), Taken::Read(100)));
        let calm = tokio::select! {
            _ = flow.take(&bulk, &mut buffer) => false,
            () = watched.1.notified() => true,
        };
        assert!(calm);
    }

    #[tokio::test]
    async fn nothing_is_lost_by_a_file_that_fails() {
        let data: Vec<u8> = (0..3_000_000u32).map(|n| (n % 251) as u8).collect();
        let full = File::options().write(true).open("/dev/full").unwrap();
        let bulk = Arc::new(Bulk::of(full));
        let (mut process, pipe) = full_pipe();
        let sent = data.clone();
        let writing = tokio::spawn(async move { process.write_all(&sent).await.unwrap() });
        let (read, placed, bytes) = all(Flow::new(pipe), &bulk).await;
        writing.await.unwrap();
        assert!((read, placed) == (data.len(), 0) && bytes == data);
    }
}
