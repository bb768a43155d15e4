//! How gladly the host's kernel kills the pod's processes when memory is short.

use std::{fs, io};

use super::Cgroup;

const OWN_FILE: &str = "/proc/self/oom_score_adj";

impl Cgroup {
    /// Sets the score of all processes in the cgroup but this one.
    ///
    /// # Errors
    /// A score is refused: one below that of the node's service needs CAP_SYS_RESOURCE.
    pub fn set_oom_score_adj(&self, score: i32) -> io::Result<()> {
        let Some(directory) = self.directories.first() else { return Ok(()) };
        let own = std::process::id().to_string();
        for pid in fs::read_to_string(directory.join("cgroup.procs"))?.lines().filter(|pid| *pid != own) {
            match fs::write(format!("/proc/{pid}/oom_score_adj"), score.to_string()) {
                // It has just ended.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                other => other?,
            }
        }
        Ok(())
    }
}

/// Makes this process go a little before the one that started it, as containerd's shims do.
///
/// # Errors
/// `/proc` is not there.
pub fn stand_behind_parent() -> io::Result<()> {
    let inherited = fs::read_to_string(OWN_FILE)?;
    let score: i32 = inherited.trim().parse().map_err(io::Error::other)?;
    fs::write(OWN_FILE, (score + 1).min(1000).to_string())
}
