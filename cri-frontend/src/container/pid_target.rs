//! PID mode TARGET: the container whose processes another one sees, as `kubectl debug --target` asks for.

use a3s_box_proto::cri::ContainerConfig;

use crate::{error::Error, node::Node, sandbox::Sandbox};

/// Refuses a target that is no running container of the pod.
pub fn check(node: &Node, sandbox: &Sandbox, config: &ContainerConfig) -> Result<(), Error> {
    let Some(target) = a3s_box_spec::pid_target(config)? else { return Ok(()) };
    let refused = |reason: &str| {
        Err(Error::Invalid(format!("namespace_options.target_id: container {target} {reason}")))
    };
    match node.containers.get(target.as_str()) {
        Ok(container) if container.id != target || container.sandbox != sandbox.id => {
            refused("is not in this pod")
        }
        Ok(container) if !container.record.with(|record| record.state.is_running()) => {
            refused("does not run")
        }
        Ok(_) => Ok(()),
        Err(_) => refused("does not exist"),
    }
}
