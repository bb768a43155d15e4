//! Log files in the CRI's format: `<RFC 3339 time> <stream> <P|F> <text>`, one line each.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
    time::SystemTime,
};

use tokio::{
    io::AsyncWrite,
    runtime::Handle,
    sync::Semaphore,
    task::{JoinHandle, spawn_blocking},
};
use tracing::warn;

use crate::sys::namespace::HostNamespace;

/// A longer line is written in parts, as containerd does.
const LONGEST_TEXT: usize = 16 * 1024;
/// Taken from the guest at once.
const CHUNK: usize = 64 * 1024;

/// What is appended at once. A disk that hangs has so many of the pool's threads at most: stop and statistics need the
/// others.
static APPENDS: Semaphore = Semaphore::const_new(4);

/// Which stream a line came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

impl Stream {
    fn name(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}

/// A log file, which may be opened anew by its path at any time.
#[derive(Debug)]
pub struct LogFile {
    host: HostNamespace,
    path: PathBuf,
    file: Mutex<File>,
    dropped: AtomicU64,
}

impl LogFile {
    /// A log file, opened by [`open_file`].
    pub(super) fn new(host: HostNamespace, path: PathBuf, file: File) -> Self {
        Self { host, path, file: Mutex::new(file), dropped: AtomicU64::new(0) }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Opens the path again. When this returns, each later line goes to the file that is there now.
    ///
    /// # Errors
    /// The file system fails; the old file goes on.
    pub async fn reopen(self: &Arc<Self>) -> io::Result<()> {
        let log = self.clone();
        self.host
            .run(move || {
                log.replace(open_file(&log.path)?);
                Ok(())
            })
            .await
    }

    fn replace(&self, file: File) {
        *self.file.lock().unwrap_or_else(PoisonError::into_inner) = file;
    }

    /// Bytes that found no room.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Appends whole lines. On a full disk they are dropped and counted: a container does not stop for its log.
    fn append(&self, lines: &[u8]) {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let length = file.metadata().map(|file| file.len());
        if let Err(error) = file.write_all(lines) {
            // A part of a line would spoil the next one.
            if let Ok(length) = length {
                let _ = file.set_len(length);
            }
            let before = self.dropped.fetch_add(lines.len() as u64, Ordering::Relaxed);
            if before == 0 {
                warn!(log = %self.path.display(), %error, "log lines are dropped");
            }
        }
    }
}

/// Opens a log file for appending, and makes it and its directories where they are not there.
///
/// # Errors
/// The file system fails, or something else has the name.
pub(super) fn open_file(path: &Path) -> io::Result<File> {
    if let Some(directory) = path.parent() {
        DirBuilder::new().recursive(true).mode(0o755).create(directory)?;
    }
    let file = OpenOptions::new().append(true).create(true).mode(0o640).open(path)?;
    if fs::FileType::is_file(&file.metadata()?.file_type()) {
        return Ok(file);
    }
    Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"))
}

/// Makes lines of a stream's bytes.
#[derive(Debug)]
struct Lines {
    stream: Stream,
    /// The beginning of a line whose end has not come.
    partial: Vec<u8>,
}

impl Lines {
    fn take(&mut self, mut bytes: &[u8], now: SystemTime, out: &mut Vec<u8>) {
        while !bytes.is_empty() {
            let room = LONGEST_TEXT - self.partial.len();
            let end = bytes.iter().take(room + 1).position(|byte| *byte == b'\n');
            match end {
                Some(end) => {
                    self.partial.extend_from_slice(&bytes[..end]);
                    bytes = &bytes[end + 1..];
                    self.write('F', now, out);
                }
                None if bytes.len() > room => {
                    self.partial.extend_from_slice(&bytes[..room]);
                    bytes = &bytes[room..];
                    self.write('P', now, out);
                }
                None => {
                    self.partial.extend_from_slice(bytes);
                    return;
                }
            }
        }
    }

    /// A last line without an end is a partial one.
    fn finish(&mut self, now: SystemTime, out: &mut Vec<u8>) {
        if !self.partial.is_empty() {
            self.write('P', now, out);
        }
    }

    fn write(&mut self, tag: char, now: SystemTime, out: &mut Vec<u8>) {
        let time = humantime::format_rfc3339_nanos(now);
        // Writing to memory does not fail.
        let _ = write!(out, "{time} {} {tag} ", self.stream.name());
        out.append(&mut self.partial);
        out.push(b'\n');
    }
}

/// Appends lines on a thread of the runtime's pool, or when there is one for logs.
fn append(runtime: &Handle, log: &Arc<LogFile>, lines: Vec<u8>) -> JoinHandle<()> {
    let log = log.clone();
    let Ok(place) = APPENDS.try_acquire() else {
        return runtime.spawn(async move {
            let _place = APPENDS.acquire().await;
            let _ = spawn_blocking(move || log.append(&lines)).await;
        });
    };
    runtime.spawn_blocking(move || {
        let _place = place;
        log.append(&lines);
    })
}

/// The end of a stream that goes to a log file. What it has accepted is in the file when the next write, a flush or
/// the shutdown is done.
pub struct LogSink {
    log: Arc<LogFile>,
    lines: Lines,
    writing: Option<JoinHandle<()>>,
    ended: bool,
}

impl LogSink {
    /// A sink of one stream.
    pub fn new(log: Arc<LogFile>, stream: Stream) -> Self {
        Self { log, lines: Lines { stream, partial: Vec::new() }, writing: None, ended: false }
    }

    fn poll_written(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if let Some(writing) = &mut self.writing {
            // A failed write was counted; a panicked one cannot be helped.
            let _ = ready!(Pin::new(writing).poll(context));
            self.writing = None;
        }
        Poll::Ready(())
    }

    fn start_writing(&mut self, lines: Vec<u8>) {
        if !lines.is_empty() {
            self.writing = Some(append(&Handle::current(), &self.log, lines));
        }
    }
}

impl AsyncWrite for LogSink {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_written(context));
        let bytes = &bytes[..bytes.len().min(CHUNK)];
        let mut out = Vec::with_capacity(bytes.len() + 64);
        self.lines.take(bytes, SystemTime::now(), &mut out);
        self.start_writing(out);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_written(context));
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_written(context));
        if !self.ended {
            self.ended = true;
            let mut out = Vec::new();
            self.lines.finish(SystemTime::now(), &mut out);
            self.start_writing(out);
        }
        ready!(self.poll_written(context));
        Poll::Ready(Ok(()))
    }
}

impl Drop for LogSink {
    fn drop(&mut self) {
        // The stream was cut off: what came of its last line is in the log nevertheless.
        let mut out = Vec::new();
        self.lines.finish(SystemTime::now(), &mut out);
        if !self.ended && !out.is_empty() {
            // Without a runtime there is nobody left to write for.
            if let Ok(runtime) = Handle::try_current() {
                append(&runtime, &self.log, out);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        os::fd::OwnedFd,
        time::{Duration, UNIX_EPOCH},
    };

    use tokio::{io::AsyncWriteExt, time::timeout};

    use super::*;
    use crate::sys::thread::blocking;

    fn lines(chunks: &[&[u8]]) -> String {
        let now = UNIX_EPOCH + Duration::from_nanos(1_480_713_967_000_000_123);
        let mut lines = Lines { stream: Stream::Stdout, partial: Vec::new() };
        let mut out = Vec::new();
        for chunk in chunks {
            lines.take(chunk, now, &mut out);
        }
        lines.finish(now, &mut out);
        String::from_utf8_lossy(&out).replace("2016-12-02T21:26:07.000000123Z stdout ", "@")
    }

    #[test]
    fn lines_are_tagged_and_joined_over_chunks() {
        assert_eq!(lines(&[b"one\ntw", b"o\n\nlast"]), "@F one\n@F two\n@F \n@P last\n");
    }

    #[test]
    fn a_long_line_is_split_at_16_kib_and_can_be_put_together() {
        let long = vec![b'x'; LONGEST_TEXT * 2 + 5];
        let text = lines(&[&long, b"\n"]);
        let tags: Vec<&str> = text.lines().map(|line| &line[..3]).collect();
        assert_eq!(tags, ["@P ", "@P ", "@F "]);
        assert_eq!(text.matches('x').count(), long.len());
        // Exactly full is not yet too long.
        assert_eq!(lines(&[&vec![b'y'; LONGEST_TEXT], b"\n"]).lines().count(), 1);
    }

    #[tokio::test]
    async fn a_reopened_log_goes_to_the_new_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("new/dir/0.log");
        let host = HostNamespace::capture().unwrap();
        let log = Arc::new(LogFile::new(host, path.clone(), open_file(&path).unwrap()));
        let mut sink = LogSink::new(log.clone(), Stream::Stderr);
        sink.write_all(b"before\n").await.unwrap();
        sink.flush().await.unwrap();
        let rotated = path.with_extension("1");
        fs::rename(&path, &rotated).unwrap();
        log.replace(open_file(&path).unwrap());
        sink.write_all(b"after\nrest").await.unwrap();
        sink.shutdown().await.unwrap();
        assert!(fs::read_to_string(rotated).unwrap().ends_with("stderr F before\n"));
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains("stderr F after\n") && text.ends_with("stderr P rest\n"), "{text}");
        assert_eq!(log.dropped(), 0);
    }

    #[test]
    fn logs_that_hang_leave_the_runtime_threads() {
        let threads = 8;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(threads)
            .build()
            .unwrap();
        let (mut readers, mut sinks) = (Vec::new(), Vec::new());
        runtime.block_on(async {
            for _ in 0..threads {
                let (reader, writer) = io::pipe().unwrap();
                readers.push(reader);
                let file = File::from(OwnedFd::from(writer));
                let host = HostNamespace::capture().unwrap();
                let log = Arc::new(LogFile::new(host, "/hangs".into(), file));
                let mut sink = LogSink::new(log, Stream::Stdout);
                // More than a pipe takes.
                sink.write_all(&vec![b'\n'; CHUNK]).await.unwrap();
                sinks.push(sink);
            }
            timeout(Duration::from_secs(5), blocking(|| Ok(()))).await.unwrap().unwrap();
        });
        // Then each append fails.
        drop(readers);
    }

    #[tokio::test]
    async fn a_full_disk_costs_lines_and_not_the_container() {
        let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
        let log = Arc::new(LogFile::new(HostNamespace::capture().unwrap(), "/dev/full".into(), full));
        let mut sink = LogSink::new(log.clone(), Stream::Stdout);
        sink.write_all(b"lost\n").await.unwrap();
        sink.shutdown().await.unwrap();
        assert!(log.dropped() > 5);
    }
}
