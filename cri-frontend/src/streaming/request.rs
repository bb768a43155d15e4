//! What a client may come for: a checked CRI request.

use std::sync::Arc;

use a3s_box_proto::cri;

use crate::{
    container::{Container, exec::Streams},
    error::Error,
    node::Node,
    sandbox::{Sandbox, SandboxRecord},
};

/// A request that waits for its client.
#[derive(Debug)]
pub enum Request {
    /// Run a process.
    Exec(Exec),
    /// Join a container's process.
    Attach(Attach),
    /// Connect to ports of a pod.
    PortForward(PortForward),
}

/// A process to be run.
#[derive(Debug)]
pub struct Exec {
    /// Where.
    pub container: Arc<Container>,
    /// What.
    pub command: Vec<String>,
    /// With which streams.
    pub streams: Streams,
}

/// A container's process to be joined.
#[derive(Debug)]
pub struct Attach {
    /// Whose.
    pub container: Arc<Container>,
    /// Which streams of it.
    pub streams: Streams,
}

/// Ports to be connected to.
#[derive(Debug)]
pub struct PortForward {
    /// In which pod.
    pub sandbox: Arc<Sandbox>,
    /// Which ports: those that a WebSocket client means, who cannot name them itself.
    pub ports: Vec<u16>,
}

impl Request {
    /// The first part of the URL's path.
    pub fn path(&self) -> &'static str {
        match self {
            Self::Exec(_) => "exec",
            Self::Attach(_) => "attach",
            Self::PortForward(_) => "portforward",
        }
    }
}

/// Checks an Exec call.
///
/// # Errors
/// The container does not run, there is no command, or the streams make no sense.
pub fn exec_request(node: &Node, request: cri::ExecRequest) -> Result<Request, Error> {
    let streams =
        Streams { stdin: request.stdin, stdout: request.stdout, stderr: request.stderr, tty: request.tty };
    check(streams)?;
    if request.cmd.first().is_none_or(String::is_empty) {
        return Err(Error::Invalid("exec: no command specified".into()));
    }
    let container = node.containers.get(&request.container_id)?;
    container.require_running("exec")?;
    Ok(Request::Exec(Exec { container, command: request.cmd, streams }))
}

/// Checks an Attach call.
///
/// # Errors
/// The container does not run, or was created with other streams.
pub fn attach_request(node: &Node, request: &cri::AttachRequest) -> Result<Request, Error> {
    let streams =
        Streams { stdin: request.stdin, stdout: request.stdout, stderr: request.stderr, tty: request.tty };
    check(streams)?;
    let container = node.containers.get(&request.container_id)?;
    container.require_running("attach")?;
    let config = container.record.with(|record| record.config.clone());
    let id = &container.id;
    if request.stdin && !config.stdin {
        return Err(Error::Invalid(format!(
            "attach: container {id} was created without stdin: set stdin in its specification"
        )));
    }
    if request.tty != config.tty {
        let problem = if config.tty { "has a terminal: ask for tty" } else { "has no terminal" };
        return Err(Error::Invalid(format!("attach: container {id} {problem}")));
    }
    Ok(Request::Attach(Attach { container, streams }))
}

/// Checks a PortForward call.
///
/// # Errors
/// The pod is not ready, or a port is none.
pub fn port_forward_request(node: &Node, request: cri::PortForwardRequest) -> Result<Request, Error> {
    let port = |port: i32| match u16::try_from(port) {
        Ok(port) if port > 0 => Ok(port),
        _ => Err(Error::Invalid(format!("port-forward: {port} is no port: 1 to 65535 are"))),
    };
    let ports = request.port.into_iter().map(port).collect::<Result<_, _>>()?;
    let sandbox = node.sandboxes.get(&request.pod_sandbox_id)?;
    if !sandbox.record.with(SandboxRecord::is_ready) {
        let problem = "is not ready: port-forward needs a running one".to_owned();
        return Err(Error::State { what: "pod sandbox", id: sandbox.id.to_string(), problem });
    }
    Ok(Request::PortForward(PortForward { sandbox, ports }))
}

/// As Kubernetes' library has it.
fn check(streams: Streams) -> Result<(), Error> {
    if streams.tty && streams.stderr {
        return Err(Error::Invalid("tty and stderr cannot both be true: a terminal has one output".into()));
    }
    if !(streams.stdin || streams.stdout || streams.stderr) {
        return Err(Error::Invalid("one of stdin, stdout and stderr must be set".into()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_that_make_no_sense_are_refused() {
        let none = Streams { stdin: false, stdout: false, stderr: false, tty: false };
        assert!(check(none).is_err());
        assert!(check(Streams { stderr: true, tty: true, ..none }).is_err());
        assert!(check(Streams { stdout: true, stdin: true, tty: true, ..none }).is_ok());
    }
}
