//! Watches over the VM and its helpers: the first that ends takes the pod with it, and so does a guest that is silent.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::time::timeout;
use tracing::error;

use super::{Ended, Phase, Pod, heartbeat, sandbox::Sandbox};
use crate::{sys::process::Supervised, vm::Vm};

/// The helpers end by themselves when the VMM is gone; then its end is the news.
const VMM_FIRST: Duration = Duration::from_millis(200);

/// Waits for the end of the VM or of one of its helpers; says which, and how.
pub(super) async fn first_end(vm: &dyn Vm, helpers: &[Arc<Supervised>]) -> String {
    let helper = futures::future::select_all(helpers.iter().map(|helper| Box::pin(helper.ended())));
    let (how, _, _) = tokio::select! {
        how = vm.wait() => return how,
        ended = helper => ended,
    };
    match timeout(VMM_FIRST, vm.wait()).await {
        Ok(vmm) => vmm,
        Err(_) => format!("{how}, without which the VM cannot run"),
    }
}

impl Pod {
    /// Waits for an end that nobody asked for; then the sandbox is stopped, its containers have ended, and what it
    /// held is given back. The shim goes on to answer, so that its frontend learns of it.
    pub(super) async fn watch(self: Arc<Self>, sandbox: Arc<Sandbox>) {
        let (vm, helpers) = {
            let resources = sandbox.resources.lock().await;
            let Some(resources) = resources.as_ref() else { return };
            (resources.vm.clone(), resources.helpers.clone())
        };
        let Some(vm) = vm else { return };
        let patience = Duration::from_secs(self.config.vm.unresponsive_timeout_s);
        let mut message = tokio::select! {
            biased;
            _ = sandbox.died() => return,
            how = first_end(vm.as_ref(), &helpers) => how,
            silent = heartbeat::lost(&sandbox.agent, patience) => silent,
        };
        let console = vm.last_words().await;
        if !console.is_empty() {
            message += &format!("; the guest's console ends with: {console}");
        }
        sandbox.declare_dead(message.clone());
        if self.stop.is_cancelled() {
            // Asked for after all: whoever stops the pod does the rest, and waits for none of its processes any more.
            return;
        }
        error!(message, "the VM ended on its own");
        self.enter(Phase::Stopped(Arc::new(Ended {
            message,
            at: SystemTime::now(),
            sandbox: Some(sandbox.clone()),
        })));
        let _lifecycle = self.lifecycle.lock().await;
        self.release(&sandbox).await;
    }

    /// Gives back what the VM held; whoever comes second finds nothing to do.
    pub(super) async fn release(&self, sandbox: &Sandbox) {
        let resources = sandbox.resources.lock().await.take();
        if let Some(resources) = resources {
            resources.release(&self.origin).await;
        }
    }
}
