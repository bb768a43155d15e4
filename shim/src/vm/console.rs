//! The guest's console: kept in memory for errors, and in a bounded file for people.

use std::{io, path::PathBuf, sync::Arc, time::Duration};

use tokio::{
    io::AsyncReadExt,
    net::UnixStream,
    time::{Instant, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::sys::{tail::Tail, thread::blocking};

/// Lines of an error message.
const QUOTED_LINES: usize = 12;
/// What a kernel says that gives up. What it was doing follows, and would push this out of the last lines.
const PANIC: &str = "Kernel panic";
/// The file is behind by so long at most.
const BEHIND: Duration = Duration::from_millis(500);
/// For what a VMM that has ended printed last: it is there, and has to be read only.
const ON_ITS_WAY: Duration = Duration::from_millis(200);

/// What the guest printed last.
#[derive(Debug, Clone)]
pub struct Console {
    tail: Arc<Tail>,
    /// Cancelled when all of it was read.
    ended: CancellationToken,
}

impl Console {
    /// Reads a console until the VMM closes it. The file is written anew soon after output, so that it holds the
    /// same as the memory, and no more.
    pub fn read(stream: UnixStream, file: PathBuf, limit: usize) -> Self {
        let console = Self { tail: Arc::new(Tail::new(limit)), ended: CancellationToken::new() };
        tokio::spawn(console.clone().follow(stream, file));
        console
    }

    /// The last lines of a guest that has ended, or is given up, fit for an error message.
    pub async fn last_words(&self) -> String {
        let _ = timeout(ON_ITS_WAY, self.ended.cancelled()).await;
        self.tail.quote_from(PANIC, QUOTED_LINES)
    }

    async fn follow(self, mut stream: UnixStream, file: PathBuf) {
        let mut buffer = vec![0; 4096];
        // When what the file lacks is to be written: a guest that never pauses does not put it off.
        let mut due = None;
        loop {
            let write = sleep_until(due.unwrap_or_else(Instant::now));
            tokio::select! {
                read = stream.read(&mut buffer) => match read {
                    Ok(count @ 1..) => {
                        self.tail.push(&buffer[..count]);
                        due.get_or_insert_with(|| Instant::now() + BEHIND);
                    }
                    _ => break,
                },
                () = write, if due.is_some() => {
                    due = None;
                    save(&file, &self.tail).await;
                }
            }
        }
        self.ended.cancel();
        save(&file, &self.tail).await;
    }
}

async fn save(file: &std::path::Path, tail: &Tail) {
    let (file, bytes) = (file.to_owned(), tail.bytes());
    let written: io::Result<()> = blocking(move || std::fs::write(file, bytes)).await;
    if let Err(error) = written {
        // The pod's directory may be on its way out; the memory still has it.
        tracing::debug!(%error, "the console's file was not written");
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;

    use super::*;

    #[tokio::test]
    async fn a_guest_that_never_pauses_reaches_the_file() {
        let root = tempfile::tempdir().unwrap();
        let file = root.path().join("console.log");
        let (mut guest, host) = UnixStream::pair().unwrap();
        let _console = Console::read(host, file.clone(), 1 << 16);
        let talk = async {
            while !file.exists() {
                guest.write_all(b"again\n").await.unwrap();
                tokio::time::sleep(BEHIND / 10).await;
            }
        };
        timeout(BEHIND * 20, talk).await.unwrap();
    }
}
