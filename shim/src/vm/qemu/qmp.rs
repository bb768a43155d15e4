//! QEMU's monitor: JSON lines on a socket of ours.

use std::{
    io,
    sync::{Arc, Mutex, PoisonError},
};

use serde::Deserialize;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::{
        UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
};

/// The longest line that is taken from QEMU.
const LONGEST_LINE: u64 = 64 * 1024;

/// What QEMU sends that we look at.
#[derive(Debug, Deserialize)]
struct Message {
    event: Option<String>,
    #[serde(default)]
    data: Data,
}

#[derive(Debug, Default, Deserialize)]
struct Data {
    reason: Option<String>,
}

/// A monitor connection.
#[derive(Debug)]
pub(super) struct Qmp {
    writer: tokio::sync::Mutex<OwnedWriteHalf>,
    reason: Arc<Mutex<Option<String>>>,
}

impl Qmp {
    /// Begins a session: leaves the negotiation, and listens for the VM's end.
    pub async fn begin(stream: UnixStream) -> io::Result<Self> {
        let (reader, mut writer) = stream.into_split();
        writer.write_all(b"{\"execute\":\"qmp_capabilities\"}\n").await?;
        let reason = Arc::default();
        tokio::spawn(listen(reader, Arc::clone(&reason)));
        Ok(Self { writer: tokio::sync::Mutex::new(writer), reason })
    }

    /// Asks QEMU to end at once.
    pub async fn quit(&self) -> io::Result<()> {
        self.writer.lock().await.write_all(b"{\"execute\":\"quit\"}\n").await
    }

    /// Why the VM went down, where QEMU said so: `guest-panic`, `guest-reset` …
    pub fn shutdown_reason(&self) -> Option<String> {
        self.reason.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

async fn listen(reader: OwnedReadHalf, reason: Arc<Mutex<Option<String>>>) {
    use tokio::io::AsyncReadExt;
    let mut reader = BufReader::with_capacity(1024, reader);
    let mut line = String::new();
    while let Ok(1..) = (&mut reader).take(LONGEST_LINE).read_line(&mut line).await {
        if let Some(said) = shutdown_event(&line) {
            *reason.lock().unwrap_or_else(PoisonError::into_inner) = Some(said);
        }
        line.clear();
    }
}

fn shutdown_event(line: &str) -> Option<String> {
    let message: Message = serde_json::from_str(line).ok()?;
    (message.event.as_deref() == Some("SHUTDOWN")).then_some(message.data.reason)?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reason_of_a_shutdown_is_taken_from_its_event() {
        let line = r#"{"timestamp": {"seconds": 1, "microseconds": 2}, "event": "SHUTDOWN",
            "data": {"guest": true, "reason": "guest-reset"}}"#;
        assert_eq!(shutdown_event(line).as_deref(), Some("guest-reset"));
        assert_eq!(shutdown_event(r#"{"return": {}}"#), None);
        assert_eq!(shutdown_event(r#"{"event": "STOP"}"#), None);
    }
}
