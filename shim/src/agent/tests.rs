use std::{
    io,
    sync::atomic::{AtomicBool, Ordering},
};

use a3s_box_proto::{
    agent::{
        CreateContainerRequest, CreateContainerResponse, DeleteRequest, DeleteResponse, ExecRequest,
        ExecResponse, SignalRequest, SignalResponse, StartContainerRequest, StartContainerResponse,
        WaitRequest, WaitResponse,
    },
    agent_ttrpc::{self, create_agent},
};
use async_trait::async_trait;
use tokio::{net::UnixStream, sync::mpsc};
use ttrpc::asynchronous::{Server, TtrpcContext, transport::Listener};

use super::*;
use crate::{
    sys::process::Identity,
    vm::{Disk, Disks},
};

/// A guest in which nothing is ever made, and nothing ends.
struct Guest {
    asked: mpsc::Sender<Asked>,
    servers: Mutex<Vec<Server>>,
}

impl Guest {
    fn agent(gone: CancellationToken) -> (Agent, mpsc::Receiver<Asked>) {
        let (asked, told) = mpsc::channel(3);
        (Agent::new(Arc::new(Self { asked, servers: Mutex::default() }), gone), told)
    }
}

/// What its agent is asked for.
#[derive(Debug)]
enum Asked {
    /// A wait, and how long the caller would have it work.
    Wait(Duration),
    /// A signal to an exec, or to a whole container.
    Signal(String, u32, bool),
    /// The deletion of a container.
    Delete(String),
}

/// Its agent.
struct Endless {
    asked: mpsc::Sender<Asked>,
    /// An exec runs once it was looked for.
    late: AtomicBool,
}

#[async_trait]
impl agent_ttrpc::Agent for Endless {
    async fn wait(&self, context: &TtrpcContext, _: WaitRequest) -> ttrpc::Result<WaitResponse> {
        let patience = Duration::from_nanos(context.timeout_nano.unsigned_abs());
        self.asked.send(Asked::Wait(patience)).await.unwrap();
        std::future::pending().await
    }

    async fn create_container(
        &self,
        _: &TtrpcContext,
        _: CreateContainerRequest,
    ) -> ttrpc::Result<CreateContainerResponse> {
        std::future::pending().await
    }

    async fn start_container(
        &self,
        _: &TtrpcContext,
        _: StartContainerRequest,
    ) -> ttrpc::Result<StartContainerResponse> {
        std::future::pending().await
    }

    async fn exec(&self, _: &TtrpcContext, _: ExecRequest) -> ttrpc::Result<ExecResponse> {
        std::future::pending().await
    }

    async fn signal(&self, _: &TtrpcContext, request: SignalRequest) -> ttrpc::Result<SignalResponse> {
        if !request.all && self.late.swap(false, Ordering::Relaxed) {
            return Err(ttrpc::Error::RpcStatus(ttrpc::get_status(Code::NOT_FOUND, "no such exec")));
        }
        self.asked.send(Asked::Signal(request.exec_id, request.signal, request.all)).await.unwrap();
        Ok(SignalResponse::new())
    }

    async fn delete(&self, _: &TtrpcContext, request: DeleteRequest) -> ttrpc::Result<DeleteResponse> {
        self.asked.send(Asked::Delete(request.container_id)).await.unwrap();
        Ok(DeleteResponse::new())
    }
}

#[async_trait]
impl Disks for Guest {
    async fn plug(&self, _: Disk) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    async fn unplug(&self, _: u8) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

#[async_trait]
impl Vm for Guest {
    fn process(&self) -> Identity {
        Identity { pid: 0, started: 0 }
    }

    async fn connect(&self, _: u32) -> io::Result<UnixStream> {
        let (near, far) = UnixStream::pair()?;
        let connections = futures::stream::iter([Ok(far)]);
        let mut server = Server::new().add_listener(Listener::new(connections)).register_service(
            create_agent(Arc::new(Endless { asked: self.asked.clone(), late: AtomicBool::new(true) })),
        );
        server.start().await.map_err(io::Error::other)?;
        self.servers.lock().await.push(server);
        Ok(near)
    }

    async fn wait(&self) -> String {
        std::future::pending().await
    }

    async fn last_words(&self) -> String {
        String::new()
    }

    async fn stop(&self, _: Duration) {}
}

#[tokio::test]
async fn a_wait_is_given_up_by_the_host_and_ends_with_the_vm() {
    let gone = CancellationToken::new();
    let (agent, mut asked) = Guest::agent(gone.clone());
    let process = ProcessRef { container: "c1".parse().unwrap(), exec: None };
    let waiting = tokio::spawn(async move { agent.wait(&process).await });
    let Some(Asked::Wait(guests)) = asked.recv().await else { panic!("it was not asked to wait") };
    assert!(guests > calls::WAIT_TURN, "the guest would give up after {guests:?}, by its own clock");
    gone.cancel();
    let error = waiting.await.unwrap().unwrap_err();
    assert_eq!(error.to_string(), "wait: the VM has ended");
}

#[tokio::test(start_paused = true)]
async fn a_container_that_is_made_too_late_is_deleted() {
    let (agent, mut asked) = Guest::agent(CancellationToken::new());
    let error =
        agent.create_container(&"c1".parse().unwrap(), CreateContainerRequest::new()).await.unwrap_err();
    assert!(matches!(error, AgentError::TimedOut { .. }), "{error}");
    assert!(matches!(asked.recv().await, Some(Asked::Delete(id)) if id == "c1"));
}

#[tokio::test(start_paused = true)]
async fn what_is_started_too_late_is_killed() {
    let (agent, mut asked) = Guest::agent(CancellationToken::new());
    let container = "c1".parse().unwrap();
    let error = agent.start_container(&container).await.unwrap_err();
    assert!(matches!(error, AgentError::TimedOut { .. }), "{error}");
    assert!(matches!(asked.recv().await, Some(Asked::Signal(exec, 9, true)) if exec.is_empty()));
    assert!(matches!(asked.recv().await, Some(Asked::Wait(_))));
    let exec = ProcessRef { container, exec: Some("e1".parse().unwrap()) };
    let error = agent.exec(&exec, ExecRequest::new()).await.unwrap_err();
    assert!(matches!(error, AgentError::TimedOut { .. }), "{error}");
    assert!(matches!(asked.recv().await, Some(Asked::Signal(exec, 9, false)) if exec == "e1"));
    assert!(matches!(asked.recv().await, Some(Asked::Wait(_))));
    assert!(matches!(asked.recv().await, Some(Asked::Delete(_))), "the exec is not forgotten");
}
