//! Ends execs whose clients have gone.

use std::{sync::Arc, time::Duration};

use tokio::time::timeout;
use tracing::{debug, warn};

use super::{
    Pod,
    container::Container,
    exec::Exec,
    exit::Exit,
    process::{KILL, State},
};
use crate::error::Result;

/// For a program to end that hears of the hang-up.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// From SIGKILL to the end.
const KILL_BOUND: Duration = Duration::from_secs(10);

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

    /// Begins to hang all execs up and to forget them; answers how many there are. Each has its own bound.
    pub fn end_execs(self: &Arc<Self>) -> usize {
        let containers = self.containers().into_iter();
        let all: Vec<_> = containers
            .flat_map(|container| container.execs().into_iter().map(move |exec| (container.clone(), exec)))
            .collect();
        let count = all.len();
        for (container, exec) in all {
            let pod = self.clone();
            self.carry(async move {
                if let Err(error) = pod.end_exec(&container, &exec).await {
                    warn!(exec = exec.process.object(), %error, "it is not forgotten");
                }
            });
        }
        count
    }

    async fn end_exec(&self, container: &Container, exec: &Exec) -> Result<()> {
        if let Err(error) = self.hang_up(exec).await {
            debug!(%error, "an exec ended before it was hung up");
        }
        // One that goes on running cannot be deleted, and says so.
        let _ = timeout(KILL_BOUND, exec.process.wait()).await;
        let sandbox = self.sandbox()?;
        container.delete_exec(&sandbox, &exec.process.reference.exec_text()).await.map(drop)
    }
}
