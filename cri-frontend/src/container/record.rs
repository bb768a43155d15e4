//! What is remembered of a container, and which states follow which.

use std::{collections::BTreeMap, sync::Arc};

use a3s_box_proto::{
    cri::ContainerConfig,
    ids::{ContainerId, SandboxId},
};
use serde::{Deserialize, Serialize};

use crate::state::{Record, Table, wire};

/// A container, as it stands in memory and on disk.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ContainerRecord {
    /// Its id.
    pub id: ContainerId,
    /// Its pod.
    pub sandbox: SandboxId,
    /// What kubelet asked for, with the resources of the latest update.
    #[serde(with = "wire")]
    pub config: Arc<ContainerConfig>,
    /// What it was made from.
    pub image: ImageUse,
    /// The ids of the images that it mounts, by the names in its configuration.
    #[serde(default)]
    pub image_volumes: BTreeMap<String, String>,
    /// Nanoseconds since the epoch.
    pub created_at: i64,
    /// Where its output goes on the host, if anywhere.
    pub log_path: Option<String>,
    /// Whom to run as, to be looked up in the container's own files.
    pub run_as: RunAs,
    /// Asks it to end.
    pub stop_signal: StopSignal,
    /// Whom it runs as, once the guest has looked that up.
    pub user: Option<User>,
    /// Where it is in its life.
    pub state: ContainerState,
}

impl ContainerRecord {
    /// The stage of its life.
    pub fn stage(&self) -> Stage {
        match self.state {
            ContainerState::Created | ContainerState::Starting => Stage::Created,
            ContainerState::Running { .. } => Stage::Running,
            ContainerState::Exited { .. } => Stage::Exited,
        }
    }
}

/// The image of a container, under the names of the moment in which the container was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageUse {
    /// `sha256:` and the digest of its configuration.
    pub id: String,
    /// A tag, or what the request said.
    pub name: String,
    /// A reference with a digest, or the id.
    pub reference: String,
}

/// A user by name or number.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunAs {
    /// Name or number; empty means 0.
    pub user: String,
    /// Name or number; empty means the user's own.
    pub group: String,
    /// More groups.
    pub supplemental_groups: Vec<u32>,
    /// The groups of the image's /etc/group are not added.
    pub strict: bool,
}

/// A user by its numbers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    /// User id.
    pub uid: u32,
    /// Primary group.
    pub gid: u32,
    /// All other groups.
    pub supplemental_groups: Vec<u32>,
}

/// The signal that asks a container to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct StopSignal {
    /// Linux's number.
    pub number: u32,
}

/// Where a container is in its life.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ContainerState {
    /// Recorded; nothing of it is in the guest.
    Created,
    /// StartContainer works on it.
    Starting,
    /// Its process runs.
    Running {
        /// Nanoseconds since the epoch.
        started_at: i64,
    },
    /// Its process has ended, or never began.
    Exited {
        /// Nanoseconds since the epoch; 0 if it never ran.
        started_at: i64,
        /// How it ended.
        exit: Exit,
    },
}

/// Where a container is in its life, as clients tell the states apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Not started yet.
    Created,
    /// Its process runs.
    Running,
    /// Its process has ended, or never began.
    Exited,
}

/// How a container ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// 0 to 255; 128 + n for a death by signal n.
    pub code: i32,
    /// Nanoseconds since the epoch.
    pub finished_at: i64,
    /// One CamelCase word.
    pub reason: String,
    /// A sentence, or nothing.
    pub message: String,
}

/// Reason of a container whose process never began, as containerd calls it.
pub const START_ERROR: &str = "StartError";
/// Exit code that goes with [`START_ERROR`].
pub const START_ERROR_CODE: i32 = 128;

impl ContainerState {
    /// Ended for good.
    pub fn is_exited(&self) -> bool {
        matches!(self, Self::Exited { .. })
    }

    /// Its process runs.
    pub fn is_running(&self) -> bool {
        matches!(self, Self::Running { .. })
    }

    /// Neither the guest nor a start works on it.
    pub fn is_idle(&self) -> bool {
        matches!(self, Self::Created | Self::Exited { .. })
    }

    /// In words, after "the container is".
    pub fn describe(&self) -> &'static str {
        match self {
            Self::Created => "created but not started",
            Self::Starting => "being started",
            Self::Running { .. } => "running",
            Self::Exited { .. } => "exited",
        }
    }

    /// Begins a start, which only one caller may.
    pub fn begin_start(&mut self) -> Result<(), &'static str> {
        if *self != Self::Created {
            return Err(self.describe());
        }
        *self = Self::Starting;
        Ok(())
    }

    /// The process runs. News that come after the exit change nothing.
    pub fn run(&mut self, started_at: i64) {
        if !self.is_exited() {
            *self = Self::Running { started_at };
        }
    }

    /// The process has ended. The first exit stands.
    pub fn exit(&mut self, exit: Exit) {
        let started_at = match self {
            Self::Exited { .. } => return,
            Self::Running { started_at } => *started_at,
            Self::Created | Self::Starting => 0,
        };
        *self = Self::Exited { started_at, exit };
    }
}

impl Exit {
    /// The exit of a container whose start failed.
    pub fn start_error(finished_at: i64, message: String) -> Self {
        Self { code: START_ERROR_CODE, finished_at, reason: START_ERROR.into(), message }
    }

    /// The exit of a container that went down with its pod, where no shim is left to tell more.
    pub fn with_pod(finished_at: i64, reason: &str) -> Self {
        Self { code: 137, finished_at, reason: "SandboxDied".into(), message: reason.to_owned() }
    }

    /// The exit of a container that its shim knows nothing of.
    pub fn unknown(finished_at: i64) -> Self {
        Self {
            code: 255,
            finished_at,
            reason: "ContainerStatusUnknown".into(),
            message: "the pod's shim does not know this container, although it was started".into(),
        }
    }
}

impl ContainerRecord {
    /// The name that no two containers may have at once.
    pub fn unique_name(&self) -> String {
        unique_name(&self.sandbox, &self.config)
    }
}

impl Record for ContainerRecord {
    const TABLE: Table = Table::Containers;

    fn key(&self) -> &str {
        self.id.as_str()
    }
}

/// An exit code that a guest told, which cannot be more than a byte.
pub fn exit_code(told: u32) -> i32 {
    i32::try_from(told.min(255)).unwrap_or(255)
}

/// Pod, name and attempt in one.
pub fn unique_name(sandbox: &SandboxId, config: &ContainerConfig) -> String {
    let metadata = config.metadata.clone().unwrap_or_default();
    format!("{sandbox}/{}/{}", metadata.name, metadata.attempt)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exit(code: i32) -> Exit {
        Exit { code, finished_at: 9, reason: "Error".into(), message: String::new() }
    }

    #[test]
    fn a_container_is_started_once() {
        let mut state = ContainerState::Created;
        state.begin_start().unwrap();
        assert_eq!(state.begin_start(), Err("being started"));
        state.run(5);
        assert_eq!(state.begin_start(), Err("running"));
        state.exit(exit(3));
        assert_eq!(state.begin_start(), Err("exited"));
        assert_eq!(state, ContainerState::Exited { started_at: 5, exit: exit(3) });
    }

    #[test]
    fn the_first_exit_stands() {
        let mut state = ContainerState::Running { started_at: 5 };
        state.exit(exit(0));
        state.exit(exit(137));
        state.run(7);
        assert_eq!(state, ContainerState::Exited { started_at: 5, exit: exit(0) });
    }

    #[test]
    fn a_failed_start_never_ran() {
        let mut state = ContainerState::Starting;
        state.exit(Exit::start_error(9, "no such file".into()));
        let ContainerState::Exited { started_at, exit } = state else { panic!("{state:?}") };
        assert_eq!((started_at, exit.code, exit.reason.as_str()), (0, 128, "StartError"));
    }
}
