//! Stops the pod, and ends the shim.

use std::{
    fs,
    sync::Arc,
    time::{Duration, SystemTime},
};

use futures::future::join_all;
use tokio::time::timeout;
use tracing::{info, warn};

use super::{
    Ended, Phase, Pod,
    container::Container,
    process::{KILL, State},
    sandbox::Sandbox,
};
use crate::error::Result;

const TERM: u32 = 15;
/// After KILL: for the log, the record and the volumes.
const END_BOUND: Duration = Duration::from_secs(10);
/// For the guest to unmount what is still in use.
const POWER_OFF_BOUND: Duration = Duration::from_secs(5);

impl Pod {
    /// Stops all containers, TERM first, KILL after the grace period, and ends the VM. When it returns, no process
    /// of the pod but the shim is left. Stopping what is stopped, or never was, succeeds.
    ///
    /// # Errors
    /// None so far.
    pub async fn stop(self: &Arc<Self>, grace: Duration) -> Result<()> {
        // A boot under way gives up, and gives back what it has.
        self.stop.cancel();
        let _lifecycle = self.lifecycle.lock().await;
        match self.phase() {
            Phase::Created(sandbox) | Phase::Ready(sandbox) => {
                self.stop_containers(&sandbox, grace).await;
                self.power_off(&sandbox).await;
                sandbox.declare_dead(String::new());
                self.release(&sandbox).await;
                self.enter(Phase::Stopped(Arc::new(Ended {
                    message: String::new(),
                    at: SystemTime::now(),
                    sandbox: Some(sandbox),
                })));
                info!("the pod is stopped");
            }
            Phase::New | Phase::Booting => self.enter(Phase::Stopped(Arc::new(Ended {
                message: String::new(),
                at: SystemTime::now(),
                sandbox: None,
            }))),
            Phase::Stopped(ended) => {
                if let Some(sandbox) = &ended.sandbox {
                    self.release(sandbox).await;
                }
            }
        }
        Ok(())
    }

    async fn stop_containers(&self, sandbox: &Sandbox, grace: Duration) {
        join_all(self.containers().iter().map(|container| stop_container(sandbox, container, grace))).await;
    }

    /// Without volumes in use there is nothing that an orderly end would save: the scratch disk goes with the pod.
    async fn power_off(&self, sandbox: &Sandbox) {
        let containers = self.containers();
        let held = join_all(containers.iter().map(|container| container.holds_volumes())).await;
        if !held.contains(&true) {
            return;
        }
        let orderly = async {
            if let Err(error) = sandbox.agent.shutdown(Duration::ZERO).await {
                warn!(%error, "the guest did not shut down");
                return;
            }
            sandbox.agent.vm().wait().await;
        };
        let _ = timeout(POWER_OFF_BOUND, orderly).await;
    }

    /// Stops the pod, and lets the shim end.
    ///
    /// # Errors
    /// Those of [`Pod::stop`].
    pub async fn shut_down(self: &Arc<Self>) -> Result<()> {
        self.stop(Duration::ZERO).await?;
        // The frontend's files beside ours are its own to remove.
        for file in [self.layout.socket(), self.layout.lock(), self.layout.record()] {
            let _ = fs::remove_file(file);
        }
        self.shutdown.cancel();
        self.carriers.close();
        self.carriers.wait().await;
        Ok(())
    }
}

async fn stop_container(sandbox: &Sandbox, container: &Container, grace: Duration) {
    if container.process.state() == State::Created {
        container.free(sandbox).await;
        return;
    }
    let ended = container.process.wait();
    tokio::pin!(ended);
    for (signal, bound) in [(TERM, grace), (KILL, END_BOUND)] {
        if !matches!(container.process.state(), State::Running(_) | State::Starting) {
            return;
        }
        if bound.is_zero() {
            continue;
        }
        if let Err(error) = sandbox.agent.signal(&container.process.reference, signal, signal == KILL).await {
            warn!(container = %container.id, signal, %error, "the signal was not delivered");
        }
        if timeout(bound, &mut ended).await.is_ok() {
            return;
        }
    }
    warn!(container = %container.id, "did not end before its VM");
}
