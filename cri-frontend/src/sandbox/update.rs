//! UpdatePodSandboxResources: a pod is resized in place.

use std::sync::Arc;

use a3s_box_proto::cri::LinuxContainerResources;
use tracing::info;

use super::{Sandbox, Vm, run::mirror};
use crate::{error::Error, node::Node};

/// kubelet's period where it sends none, microseconds.
const PERIOD: i64 = 100_000;

/// Takes over the pod's new limits, which its containers' limits follow one by one. A MicroVM cannot grow: limits that it
/// has no room for are refused, since no container would ever reach them.
pub async fn update(
    node: &Arc<Node>,
    id: &str,
    resources: Option<LinuxContainerResources>,
    overhead: Option<LinuxContainerResources>,
) -> Result<(), Error> {
    let sandbox = node.sandboxes.get(id)?;
    let owner = node.clone();
    node.finish(async move {
        // Alone, so that two updates do not write the copy of the record at once.
        let _exclusive = sandbox.lifecycle.write().await;
        apply(&owner, &sandbox, resources, overhead).await
    })
    .await
}

async fn apply(
    node: &Node,
    sandbox: &Sandbox,
    resources: Option<LinuxContainerResources>,
    overhead: Option<LinuxContainerResources>,
) -> Result<(), Error> {
    let refuse = |problem: String| Error::State { what: "pod sandbox", id: sandbox.id.to_string(), problem };
    if !sandbox.record.with(super::SandboxRecord::is_ready) {
        return Err(refuse("is not ready: it has no limits to update".into()));
    }
    if let (Some(resources), Some(vm)) = (&resources, sandbox.vm()) {
        fits(resources, &vm).map_err(refuse)?;
    }
    sandbox.record.update(|record| {
        let linux = Arc::make_mut(&mut record.config).linux.get_or_insert_default();
        linux.resources = resources.or_else(|| linux.resources.take());
        linux.overhead = overhead.or_else(|| linux.overhead.take());
    });
    info!(sandbox = %sandbox.id, "pod sandbox has new limits");
    sandbox.record.persist(&node.db).await?;
    mirror(sandbox).await
}

fn fits(asked: &LinuxContainerResources, vm: &Vm) -> Result<(), String> {
    let cannot = "and a MicroVM cannot grow: make the pod anew";
    let memory = u64::try_from(asked.memory_limit_in_bytes).unwrap_or(0);
    if memory > vm.memory_bytes {
        return Err(format!("has a MicroVM of {} bytes of memory, not {memory}, {cannot}", vm.memory_bytes));
    }
    let period = if asked.cpu_period > 0 { asked.cpu_period } else { PERIOD };
    let processors = asked.cpu_quota.max(0).unsigned_abs().div_ceil(period.unsigned_abs());
    if processors > u64::from(vm.vcpus) {
        return Err(format!("has a MicroVM of {} processors, not {processors}, {cannot}", vm.vcpus));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_vm_has_room_for_fits() {
        let vm = Vm {
            pid: 1,
            accelerator: "kvm".into(),
            vcpus: 2,
            memory_bytes: 256 << 20,
            kernel: String::new(),
            agent_version: String::new(),
        };
        let asked = |memory: i64, quota: i64| {
            let resources = LinuxContainerResources {
                memory_limit_in_bytes: memory,
                cpu_quota: quota,
                ..Default::default()
            };
            fits(&resources, &vm)
        };
        for (memory, quota) in [(0, 0), (256 << 20, 200_000), (-1, -1)] {
            asked(memory, quota).unwrap();
        }
        assert!(asked(1 << 30, 0).unwrap_err().contains("memory"));
        assert!(asked(0, 200_001).unwrap_err().contains("processors"));
    }
}
