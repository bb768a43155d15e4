//! From a pod's specification to a VM whose agent is ready.

mod parts;

use std::{io, path::Path, time::Duration};

use a3s_box_proto::{agent::Ready, config::Config, ids::SandboxId};
use tokio::{net::UnixListener, time::timeout};
use tokio_util::sync::CancellationToken;
use tracing::info;
use ttrpc::Code;

use super::{layout::Layout, resources::Resources, spec::PodSpec, watch::first_end};
use crate::{
    agent::connect,
    error::{code_of, interrupted},
    network::{Baseline, Mac},
    sys::{namespace::HostNamespace, tail::printable},
    vm::{self, Accelerator, Plan, Size, Vm},
};

/// Why the MicroVM did not come up.
#[derive(Debug, thiserror::Error)]
#[error("{step} failed{}: {cause}{}", accelerator_text(*.accelerator), console_text(.console))]
pub struct BootError {
    step: &'static str,
    accelerator: Option<&'static str>,
    cause: String,
    console: String,
    code: Code,
}

fn accelerator_text(accelerator: Option<&str>) -> String {
    accelerator.map(|name| format!(" (accelerator {name})")).unwrap_or_default()
}

fn console_text(console: &str) -> String {
    if console.is_empty() { String::new() } else { format!("; the guest's console ends with: {console}") }
}

impl BootError {
    /// An error of a step.
    pub(super) fn at(step: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |error| {
            let code = match error.kind() {
                // A file of the node's, which its configuration names.
                io::ErrorKind::NotFound => Code::FAILED_PRECONDITION,
                kind => code_of(kind),
            };
            Self { step, accelerator: None, cause: error.to_string(), console: String::new(), code }
        }
    }

    /// An error of a step that may be the accelerator's.
    fn of_vm(step: &'static str, accelerator: Accelerator) -> impl FnOnce(io::Error) -> Self {
        move |error| Self { accelerator: Some(accelerator.name()), ..Self::at(step)(error) }
    }

    /// What a caller may make of it.
    pub fn code(&self) -> Code {
        self.code
    }
}

/// A VM that is up.
#[derive(Debug)]
pub struct Booted {
    /// Which accelerator runs it.
    pub accelerator: &'static str,
    /// The guest's numbers for the VM's network devices, in the order of these.
    pub network_devices: Vec<u32>,
    /// What its network namespace would be like, had no plugin touched it.
    pub baseline: Option<Baseline>,
    /// What the agent said of its kernel.
    pub kernel_release: String,
    /// The agent's own version, as it says.
    pub agent_version: String,
}

/// What booting needs to know besides the pod's specification.
#[derive(Debug)]
pub struct Environment<'a> {
    /// The node's configuration.
    pub config: &'a Config,
    /// The pod.
    pub pod: &'a SandboxId,
    /// The pod's paths.
    pub layout: &'a Layout,
    /// The pod's cgroup.
    pub cgroup: &'a Path,
    /// How the VM's processor is run.
    pub accelerator: Accelerator,
    /// The VM's size.
    pub size: Size,
    /// Where the node's paths mean what callers mean.
    pub host: &'a HostNamespace,
    /// Cancelled when the pod is to be stopped.
    pub cancel: &'a CancellationToken,
}

/// Boots. What was acquired stays in `resources`, also after an error: the caller gives it back.
///
/// # Errors
/// The step that failed, and why.
pub async fn boot(
    environment: &Environment<'_>,
    spec: &PodSpec,
    resources: &mut Resources,
) -> Result<Booted, BootError> {
    let Environment { config, layout, accelerator, size, .. } = *environment;
    let files = parts::open_files(config, accelerator);
    let files = files.map_err(BootError::at("opening the files of the VM"))?;
    let uid = parts::claim(environment, resources).await?;
    let parts::Parts { devices, ready, device_macs } =
        parts::make(environment, spec, files, uid, resources).await?;
    let plan = Plan { accelerator, size, uid };
    let vm = vm::start(&config.vm, &plan, devices, layout.console())
        .await
        .map_err(BootError::of_vm("starting the VMM", accelerator))?;
    let vm = resources.vm.insert(vm).clone();
    resources.record().map_err(BootError::at("writing the pod's record"))?;
    info!(
        pid = vm.process().pid,
        accelerator = accelerator.name(),
        vcpus = size.vcpus,
        memory_mb = size.memory_mb,
        "VM started"
    );
    // The guest has enough to do meanwhile.
    let (said, baseline) =
        tokio::join!(await_agent(vm.as_ref(), resources, &ready, environment), baseline(&device_macs));
    let baseline = baseline.map_err(BootError::at("looking at a new network namespace"))?;
    let said = said.and_then(|said| Ok((numbers(&device_macs, &said)?, said)));
    match said {
        Ok((network_devices, said)) => Ok(Booted {
            accelerator: accelerator.name(),
            network_devices,
            baseline,
            kernel_release: printable(&said.kernel_release, 64),
            agent_version: printable(&said.agent_version, 64),
        }),
        Err(error) => {
            let error = BootError::of_vm("booting the guest", accelerator)(error);
            Err(BootError { console: vm.last_words().await, ..error })
        }
    }
}

async fn baseline(device_macs: &[Mac]) -> io::Result<Option<Baseline>> {
    if device_macs.is_empty() { Ok(None) } else { Baseline::read().await.map(Some) }
}

/// What the guest calls the VM's network devices.
fn numbers(macs: &[Mac], said: &Ready) -> io::Result<Vec<u32>> {
    let number = |mac: &Mac| {
        let device = said.devices.iter().find(|device| device.mac == mac.0);
        let lost = || io::Error::other(format!("the guest has not found its network device {mac}"));
        device.map(|device| device.index).ok_or_else(lost)
    };
    macs.iter().map(number).collect()
}

/// Waits for the agent's word. It does not come where the VM ends first, or the pod is to be stopped.
async fn await_agent(
    vm: &dyn Vm,
    resources: &Resources,
    ready: &UnixListener,
    environment: &Environment<'_>,
) -> io::Result<Ready> {
    let bound = Duration::from_secs(environment.config.vm.boot_timeout_s);
    let late = || {
        let bound = bound.as_secs();
        let text = format!("the agent did not say that it is ready within vm.boot_timeout_s = {bound}");
        io::Error::new(io::ErrorKind::TimedOut, text)
    };
    tokio::select! {
        said = timeout(bound, connect::ready(ready)) => said.map_err(|_| late())?,
        how = first_end(vm, &resources.helpers) => Err(io::Error::other(how)),
        () = environment.cancel.cancelled() => Err(interrupted()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_fails_with_the_code_of_its_cause() {
        for (kind, code) in [
            (io::ErrorKind::NotFound, Code::FAILED_PRECONDITION),
            (io::ErrorKind::QuotaExceeded, Code::RESOURCE_EXHAUSTED),
            (io::ErrorKind::TimedOut, Code::DEADLINE_EXCEEDED),
            (io::ErrorKind::Other, Code::INTERNAL),
        ] {
            assert_eq!(BootError::at("a step")(kind.into()).code(), code, "{kind}");
        }
    }
}
