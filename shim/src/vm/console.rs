//! The guest's console: kept in memory for errors, and in a bounded file for people.

use std::{io, path::PathBuf, sync::Arc};

use tokio::{io::AsyncReadExt, net::UnixStream};

use crate::sys::{tail::Tail, thread::blocking};

/// What the guest printed last.
#[derive(Debug, Clone)]
pub struct Console(Arc<Tail>);

impl Console {
    /// Reads a console until the VMM closes it. The file is written anew when output pauses, so that it holds the
    /// same as the memory, and no more.
    pub fn read(stream: UnixStream, file: PathBuf, limit: usize) -> Self {
        let tail = Arc::new(Tail::new(limit));
        tokio::spawn(follow(stream, file, tail.clone()));
        Self(tail)
    }

    /// The last lines, fit for an error message.
    pub fn quote(&self) -> String {
        self.0.quote(12)
    }
}

async fn follow(mut stream: UnixStream, file: PathBuf, tail: Arc<Tail>) {
    let mut buffer = vec![0; 4096];
    let mut unwritten = false;
    loop {
        let pause = tokio::time::sleep(std::time::Duration::from_millis(500));
        tokio::select! {
            read = stream.read(&mut buffer) => match read {
                Ok(count @ 1..) => {
                    tail.push(&buffer[..count]);
                    unwritten = true;
                }
                _ => break,
            },
            () = pause, if unwritten => {
                unwritten = false;
                save(&file, &tail).await;
            }
        }
    }
    save(&file, &tail).await;
}

async fn save(file: &std::path::Path, tail: &Tail) {
    let (file, bytes) = (file.to_owned(), tail.bytes());
    let written: io::Result<()> = blocking(move || std::fs::write(file, bytes)).await;
    if let Err(error) = written {
        // The pod's directory may be on its way out; the memory still has it.
        tracing::debug!(%error, "the console's file was not written");
    }
}
