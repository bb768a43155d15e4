//! A shim's process, held by a pidfd: never mistaken for another that got its number.

use std::{io, os::fd::OwnedFd, time::Duration};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::{io::Interest, io::unix::AsyncFd, time::timeout};

/// A running or ended shim.
#[derive(Debug)]
pub struct ShimProcess {
    pidfd: AsyncFd<OwnedFd>,
}

impl ShimProcess {
    /// Takes hold of a process that is known to live at this moment.
    pub fn open(pid: u32) -> io::Result<Self> {
        let pid = i32::try_from(pid)
            .ok()
            .and_then(Pid::from_raw)
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, format!("{pid} is no process id")))?;
        let pidfd = pidfd_open(pid, PidfdFlags::NONBLOCK)?;
        // SAFETY: `AsyncFd` owns the descriptor and unregisters it before it is closed; nobody else has its number.
        let pidfd = unsafe { AsyncFd::register_with_interest(pidfd, Interest::READABLE) }?;
        Ok(Self { pidfd })
    }

    /// Waits for its end; false if it did not come in time.
    pub async fn ended(&self, bound: Duration) -> bool {
        // A pidfd becomes readable when its process ends, and stays so.
        matches!(timeout(bound, self.pidfd.readable()).await, Ok(Ok(_)))
    }

    /// Kills it, if it lives.
    pub fn kill(&self) {
        // The only failure left is that it has ended.
        let _ = pidfd_send_signal(self.pidfd.get_ref(), Signal::KILL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_killed_process_is_seen_to_end() {
        let mut child = tokio::process::Command::new("sleep").arg("100").spawn().unwrap();
        let process = ShimProcess::open(child.id().unwrap()).unwrap();
        assert!(!process.ended(Duration::ZERO).await);
        process.kill();
        assert!(process.ended(Duration::from_secs(10)).await);
        assert!(!child.wait().await.unwrap().success());
        process.kill();
        assert!(ShimProcess::open(0).is_err());
    }
}
