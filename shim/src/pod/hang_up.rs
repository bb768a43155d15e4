//! Ends an exec whose client has gone.

use super::{Pod, exec::Exec, process::State};
use crate::error::Result;

/// SIGKILL.
const KILL: u32 = 9;

impl Pod {
    /// Hangs the terminal of an exec up; without one, kills its process, and not what that has started.
    ///
    /// # Errors
    /// It does not run, or the agent fails.
    pub async fn hang_up(&self, exec: &Exec) -> Result<()> {
        let process = &exec.process;
        if !matches!(process.state(), State::Running(_)) {
            return Err(process.wrong_state("hang it up"));
        }
        let agent = &self.sandbox()?.agent;
        if process.stdio.terminal {
            agent.hang_up(&process.reference).await?;
        } else {
            agent.signal(&process.reference, KILL, false).await?;
        }
        Ok(())
    }
}
