//! Which PID namespace a container has.

use std::path::PathBuf;

use super::{Containers, spec::Pids};
use crate::{
    error::{Error, Failed, For, Object},
    process::zygote::{self, Reply, Request},
};

impl Containers {
    /// The path of a PID namespace that the container joins; none for one of its own or the guest's.
    pub(super) async fn pid_namespace(&self, pids: Pids) -> Result<Option<PathBuf>, Error> {
        let pid = match pids {
            Pids::Own | Pids::Guest => return Ok(None),
            Pids::Of(other) => {
                let other = self.get(&other)?;
                // Its number could be another process's by now.
                if other.init.ended().is_some() {
                    return Err(other.precondition("it has ended, and its PID namespace with it"));
                }
                other.init.pid()
            }
            Pids::Pod => self.shared_pid_namespace().await.of(|| Object::Sandbox)?,
        };
        Ok(Some(PathBuf::from(format!("/proc/{pid}/ns/pid"))))
    }

    async fn shared_pid_namespace(&self) -> Result<i32, Failed> {
        let mut shared = self.shared_pids.lock().await;
        if let Some(pid) = *shared {
            return Ok(pid);
        }
        let made = self.zygote.ask(&Request::Pause, &[])?.next().await?;
        let pid = match made {
            Some((Reply::Made(pid), _)) => pid,
            other => return Err(zygote::unexpected("make the pod's PID namespace", other)),
        };
        *shared = Some(pid);
        Ok(pid)
    }
}
