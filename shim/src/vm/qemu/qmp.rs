//! QEMU's monitor: JSON lines on a socket of ours.

use std::{
    collections::HashMap,
    io::{self, IoSlice},
    mem::MaybeUninit,
    os::fd::{AsFd, BorrowedFd},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Interest},
    net::{
        UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::oneshot,
    time::timeout,
};

/// The longest line that is taken from QEMU.
const LONGEST_LINE: u64 = 64 * 1024;
/// QEMU's main loop answers in milliseconds, or not at all.
const ANSWER_BOUND: Duration = Duration::from_secs(10);

/// What QEMU sends that we look at.
#[derive(Debug, Deserialize)]
struct Message {
    event: Option<String>,
    #[serde(default)]
    data: Data,
    /// Our number of the command that is answered.
    id: Option<u64>,
    error: Option<Refusal>,
}

#[derive(Debug, Default, Deserialize)]
struct Data {
    reason: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Refusal {
    desc: String,
}

type Answer = Result<(), String>;

/// A monitor connection.
#[derive(Debug)]
pub(super) struct Qmp {
    writer: tokio::sync::Mutex<OwnedWriteHalf>,
    next: AtomicU64,
    heard: Arc<Heard>,
}

/// What the listening task has heard, or shall hear.
#[derive(Debug, Default)]
struct Heard {
    reason: Mutex<Option<String>>,
    waiting: Mutex<HashMap<u64, oneshot::Sender<Answer>>>,
}

impl Qmp {
    /// Begins a session: leaves the negotiation, and listens for answers and for the VM's end.
    pub async fn begin(stream: UnixStream) -> io::Result<Self> {
        let (reader, mut writer) = stream.into_split();
        writer.write_all(b"{\"execute\":\"qmp_capabilities\"}\n").await?;
        let heard = Arc::<Heard>::default();
        tokio::spawn(listen(reader, Arc::clone(&heard)));
        Ok(Self { writer: tokio::sync::Mutex::new(writer), next: AtomicU64::new(1), heard })
    }

    /// Asks QEMU to end at once.
    pub async fn quit(&self) -> io::Result<()> {
        self.writer.lock().await.write_all(b"{\"execute\":\"quit\"}\n").await
    }

    /// Runs a command, which may come with a descriptor.
    ///
    /// # Errors
    /// QEMU refuses, does not answer, or is gone.
    pub async fn execute(
        &self,
        command: &str,
        arguments: Value,
        fd: Option<BorrowedFd<'_>>,
    ) -> io::Result<()> {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let (sender, answer) = oneshot::channel();
        self.heard.waiting().insert(id, sender);
        let line = format!("{}\n", json!({"execute": command, "arguments": arguments, "id": id}));
        let answered = async {
            self.send(line.as_bytes(), fd).await?;
            answer.await.map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?.map_err(io::Error::other)
        };
        let outcome = match timeout(ANSWER_BOUND, answered).await {
            Ok(outcome) => outcome,
            Err(late) => Err(late.into()),
        };
        self.heard.waiting().remove(&id);
        outcome.map_err(|error| io::Error::new(error.kind(), format!("QEMU's {command}: {error}")))
    }

    async fn send(&self, line: &[u8], fd: Option<BorrowedFd<'_>>) -> io::Result<()> {
        let mut writer = self.writer.lock().await;
        let Some(fd) = fd else { return writer.write_all(line).await };
        let stream: &UnixStream = writer.as_ref();
        let sent = stream.async_io(Interest::WRITABLE, || send_with(stream, line, fd)).await?;
        writer.write_all(&line[sent..]).await
    }

    /// Why the VM went down, where QEMU said so: `guest-panic`, `guest-reset` …
    pub fn shutdown_reason(&self) -> Option<String> {
        self.heard.reason.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn send_with(stream: &UnixStream, line: &[u8], fd: BorrowedFd<'_>) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let fds = [fd];
    if !control.push(SendAncillaryMessage::ScmRights(&fds)) {
        return Err(io::Error::other("no room for a descriptor"));
    }
    Ok(sendmsg(stream.as_fd(), &[IoSlice::new(line)], &mut control, SendFlags::NOSIGNAL)?)
}

impl Heard {
    fn waiting(&self) -> std::sync::MutexGuard<'_, HashMap<u64, oneshot::Sender<Answer>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn hear(&self, message: Message) {
        if message.event.as_deref() == Some("SHUTDOWN") {
            if let Some(reason) = message.data.reason {
                *self.reason.lock().unwrap_or_else(PoisonError::into_inner) = Some(reason);
            }
        } else if let Some(waiting) = message.id.and_then(|id| self.waiting().remove(&id)) {
            // Nobody waits any more for an answer that came too late.
            let _ = waiting.send(message.error.map_or(Ok(()), |error| Err(error.desc)));
        }
    }
}

async fn listen(reader: OwnedReadHalf, heard: Arc<Heard>) {
    let mut reader = BufReader::with_capacity(1024, reader);
    let mut line = String::new();
    while let Ok(1..) = (&mut reader).take(LONGEST_LINE).read_line(&mut line).await {
        if let Ok(message) = serde_json::from_str(&line) {
            heard.hear(message);
        }
        line.clear();
    }
    heard.waiting().clear();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reason_of_a_shutdown_is_taken_from_its_event() {
        let heard = Heard::default();
        let hear = |line: &str| heard.hear(serde_json::from_str(line).unwrap());
        hear(r#"{"return": {}}"#);
        hear(r#"{"event": "STOP"}"#);
        assert_eq!(*heard.reason.lock().unwrap(), None);
        hear(
            r#"{"timestamp": {"seconds": 1, "microseconds": 2}, "event": "SHUTDOWN",
            "data": {"guest": true, "reason": "guest-reset"}}"#,
        );
        assert_eq!(heard.reason.lock().unwrap().as_deref(), Some("guest-reset"));
    }

    #[tokio::test]
    async fn a_command_gets_its_own_answer_and_its_descriptor_goes_along() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let qmp = Qmp::begin(ours).await.unwrap();
        let file = std::fs::File::open("/dev/null").unwrap();
        let qemu = tokio::spawn(async move {
            let (reader, mut writer) = theirs.into_split();
            let mut lines = BufReader::new(reader).lines();
            lines.next_line().await.unwrap();
            for answer in
                ["\"return\": {}", "\"error\": {\"class\": \"GenericError\", \"desc\": \"no such bus\"}"]
            {
                let said: Value = serde_json::from_str(&lines.next_line().await.unwrap().unwrap()).unwrap();
                let answer = format!("{{\"event\": \"X\"}}\n{{\"id\": {}, {answer}}}\n", said["id"]);
                writer.write_all(answer.as_bytes()).await.unwrap();
            }
        });
        qmp.execute("add-fd", json!({"fdset-id": 7}), Some(file.as_fd())).await.unwrap();
        let error = qmp.execute("device_add", json!({}), None).await.unwrap_err().to_string();
        assert!(error.contains("device_add") && error.contains("no such bus"), "{error}");
        qemu.await.unwrap();
    }
}
