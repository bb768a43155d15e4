//! How a process ended, and that it is on disk before anybody is told.

use std::{
    io,
    path::Path,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde::Serialize;

use super::process::KILL;
use crate::{
    agent::GuestExit,
    sys::{file::write_durably, namespace::HostNamespace},
};

/// Death by the signal that nobody survives, as an exit code.
const KILLED: u32 = 128 + KILL;
/// The most that the guest's clock differs from ours, between two words of the time.
const CLOCK_ERROR: Duration = Duration::from_secs(3);
/// The kernel killed a process of it for want of memory.
const OUT_OF_MEMORY: &str = "OOMKilled";
/// containerd's code for a program that could not be started.
const NOT_STARTED: u32 = 128;

/// An end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exit {
    /// 0 to 255.
    pub code: u32,
    /// When.
    pub at: SystemTime,
    /// A word for it.
    pub reason: &'static str,
    /// More, where there is more to say.
    pub message: String,
}

/// The record's file.
#[derive(Serialize)]
struct Record<'a> {
    code: u32,
    exited_at_unix_nanos: i64,
    reason: &'a str,
    message: &'a str,
}

impl Exit {
    /// As the guest told, just now. Its clock may be off by a little, and is not trusted beyond the time that the
    /// process can have ended in; it counts where the word came late.
    pub fn from_guest(exit: GuestExit, started: SystemTime) -> Self {
        let code = u32::from(exit.code);
        let reason = match code {
            // Whatever the first process made of it, as in containerd.
            _ if exit.oom_killed => OUT_OF_MEMORY,
            0 => "Completed",
            _ => "Error",
        };
        let now = SystemTime::now();
        let at = exit.at.clamp(started.min(now), now);
        let is_late = now.duration_since(at).is_ok_and(|late| late > CLOCK_ERROR);
        Self { code, at: if is_late { at } else { now }, reason, message: String::new() }
    }

    /// The VM ended, and took the process with it.
    pub fn with_sandbox(message: String) -> Self {
        Self { code: KILLED, at: SystemTime::now(), reason: "SandboxDied", message }
    }

    /// Nobody knows how it ended.
    pub fn unknown(message: String) -> Self {
        Self { code: 255, at: SystemTime::now(), reason: "Error", message }
    }

    /// The program could not be started.
    pub fn not_started(message: String) -> Self {
        Self { code: NOT_STARTED, at: SystemTime::now(), reason: "StartError", message }
    }

    /// Whether memory was what it ended for lack of.
    pub fn is_out_of_memory(&self) -> bool {
        self.reason == OUT_OF_MEMORY
    }

    /// Writes `exit.json` into a container's bundle, durably.
    ///
    /// # Errors
    /// The file system fails.
    pub async fn write(&self, host: &HostNamespace, bundle: &Path) -> io::Result<()> {
        let (path, content) = (bundle.join("exit.json"), self.record()?);
        host.run(move || write_durably(&path, &content)).await
    }

    fn record(&self) -> io::Result<Vec<u8>> {
        let record = Record {
            code: self.code,
            exited_at_unix_nanos: unix_nanos(self.at),
            reason: self.reason,
            message: &self.message,
        };
        Ok(serde_json::to_vec(&record)?)
    }
}

/// Nanoseconds since the epoch.
pub fn unix_nanos(time: SystemTime) -> i64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guest(code: u8, oom_killed: bool, at: SystemTime) -> GuestExit {
        GuestExit { code, at, oom_killed }
    }

    #[test]
    fn reasons_are_those_that_kubernetes_knows() {
        let now = SystemTime::now();
        for (code, oom, reason) in [
            (0, false, "Completed"),
            (1, false, "Error"),
            (137, false, "Error"),
            (137, true, "OOMKilled"),
            // A child was killed for memory; the container itself ended otherwise.
            (1, true, "OOMKilled"),
        ] {
            assert_eq!(Exit::from_guest(guest(code, oom, now), now).reason, reason);
        }
    }

    #[test]
    fn an_end_lies_between_the_start_and_now() {
        let started = SystemTime::now() - Duration::from_secs(60);
        let early = Exit::from_guest(guest(0, false, UNIX_EPOCH), started);
        assert_eq!(early.at, started);
        let late = Exit::from_guest(guest(0, false, started + Duration::from_secs(9999)), started);
        assert!(late.at <= SystemTime::now());
    }

    #[test]
    fn the_record_tells_all_of_an_end() {
        let exit = Exit { at: UNIX_EPOCH + Duration::from_nanos(7), ..Exit::not_started("no /bin/x".into()) };
        let record = r#"{"code":128,"exited_at_unix_nanos":7,"reason":"StartError","message":"no /bin/x"}"#;
        assert_eq!(exit.record().unwrap(), record.as_bytes());
    }
}
