//! Ends execs whose clients have gone.

use std::{sync::Arc, time::Duration};

use tokio::time::timeout;
use tracing::{debug, info, warn};

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

impl Pod {
    /// Hangs up and forgets all execs that there are now: nobody waits for them, nor keeps to their time limits, any more.
    pub fn abandon_execs(self: &Arc<Self>) {
        for container in self.containers() {
            for exec in container.all_execs() {
                let (pod, container) = (self.clone(), container.clone());
                self.carry(async move { pod.abandon(&container, &exec).await });
            }
        }
    }

    async fn abandon(&self, container: &Container, exec: &Exec) {
        info!(process = exec.process.object(), "is abandoned");
        if let Err(error) = self.hang_up(exec).await {
            debug!(process = exec.process.object(), %error, "ends by itself");
        }
        exec.process.wait().await;
        let forgotten =
            async { container.delete_exec(&*self.sandbox()?, &exec.process.reference.exec_text()).await };
        if let Err(error) = forgotten.await {
            warn!(process = exec.process.object(), %error, "an abandoned exec is not forgotten");
        }
    }

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
