//! How a process ended.

use a3s_box_proto::ids::{ContainerId, ExecId};

use super::Containers;
use crate::{
    error::{Error, For, Object},
    process::reaper::Exit,
};

/// The end of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ended {
    /// Code and time.
    pub exit: Exit,
    /// The kernel killed a process of this container for want of memory.
    pub oom_killed: bool,
}

impl Containers {
    /// Waits for a process's end; at once if it has ended.
    pub async fn wait(&self, id: &ContainerId, exec: Option<&ExecId>) -> Result<Ended, Error> {
        let container = self.get(id)?;
        let process = self.process(id, exec)?;
        let exit = process.wait().await.of(|| Object::Container(id.clone()))?;
        // The cgroup is there until the container is deleted.
        Ok(Ended { exit, oom_killed: container.cgroup.oom_kills() > 0 })
    }
}
