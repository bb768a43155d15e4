//! Processes of containers: made by the zygote, reaped by PID 1, spoken to by streams.

pub mod program;
pub mod pty;
pub mod reaper;
pub mod seccomp;
pub mod stdio;
pub mod streams;
pub mod zygote;

use std::os::fd::OwnedFd;

use reaper::{Exit, ExitWatch};
use stdio::Stdio;

use crate::{
    error::{Failed, Step},
    sys,
};

/// A process of a container, until it is deleted.
#[derive(Debug)]
pub struct Process {
    pid: i32,
    handle: OwnedFd,
    exit: ExitWatch,
    /// Its standard streams.
    pub stdio: Stdio,
}

impl Process {
    /// A process that has been made; `launch` has kept its status if it has ended already. One that cannot be watched, or not be
    /// spoken to, is ended: nobody would ever learn of it.
    pub fn adopt(pid: i32, launch: &reaper::Launch, stdio: Result<Stdio, Failed>) -> Result<Self, Failed> {
        Self::watch(pid, launch, stdio).inspect_err(|_| {
            let _ = sys::process::kill(pid, libc::SIGKILL);
        })
    }

    fn watch(pid: i32, launch: &reaper::Launch, stdio: Result<Stdio, Failed>) -> Result<Self, Failed> {
        let stdio = stdio?;
        let (handle, exit) = launch.claim(pid).step(|| format!("open process {pid}"))?;
        Ok(Self { pid, handle, exit, stdio })
    }

    /// Its id in the guest's root PID namespace.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// A handle on it.
    pub fn handle(&self) -> &OwnedFd {
        &self.handle
    }

    /// How it ended, if it has.
    pub fn ended(&self) -> Option<Exit> {
        *self.exit.borrow()
    }

    /// Waits for its end.
    pub async fn wait(&self) -> Result<Exit, Failed> {
        let mut exit = self.exit.clone();
        match exit.wait_for(Option::is_some).await {
            Ok(ended) => ended.ok_or_else(|| Failed::because("wait", "the reaper lost the status")),
            Err(_) => Err(Failed::because("wait", "the reaper has ended")),
        }
    }

    /// Sends a signal; a process that has ended has nothing to receive it, which is no error here.
    pub fn signal(&self, signal: i32) -> Result<(), Failed> {
        if self.ended().is_some() {
            return Ok(());
        }
        match sys::process::pidfd_signal(&self.handle, signal) {
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Ok(()),
            other => other.step(|| format!("send signal {signal} to process {}", self.pid)),
        }
    }
}
