//! Ends an exec whose client has gone.

use std::time::Duration;

use tokio::time::timeout;

use super::{
    Pod,
    exec::Exec,
    exit::Exit,
    process::{KILL, State},
};
use crate::error::Result;

/// For a program to end that hears of the hang-up.
const LAST_WORDS: Duration = Duration::from_secs(1);

impl Pod {
    /// Hangs the terminal of an exec up; without one, kills its process, and not what that has started. A program that
    /// ignores the hang-up is killed too.
    ///
    /// # Errors
    /// It does not run, or the agent fails.
    pub async fn hang_up(&self, exec: &Exec) -> Result<()> {
        let process = &exec.process;
        if process.begin_start().is_ok() {
            // A start that is still on its way finds that it has ended.
            process.exited(Exit::not_started("its client has gone".to_owned()));
            return Ok(());
        }
        if !matches!(process.settled().await, State::Running(_)) {
            return Err(process.wrong_state("hang it up"));
        }
        let agent = &self.sandbox()?.agent;
        if process.stdio.terminal {
            agent.hang_up(&process.reference).await?;
            if timeout(LAST_WORDS, process.wait()).await.is_ok() {
                return Ok(());
            }
        }
        Ok(agent.signal(&process.reference, KILL, false).await?)
    }
}
