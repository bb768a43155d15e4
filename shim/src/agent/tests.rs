use std::io;

use a3s_box_proto::{
    agent::{WaitRequest, WaitResponse},
    agent_ttrpc::{self, create_agent},
};
use async_trait::async_trait;
use tokio::{net::UnixStream, sync::mpsc};
use ttrpc::asynchronous::{Server, TtrpcContext, transport::Listener};

use super::*;
use crate::vm::{Disk, Disks};

/// A guest in which nothing ever ends.
struct Guest {
    patience: mpsc::Sender<Duration>,
    servers: Mutex<Vec<Server>>,
}

/// Its agent, which says how long a caller would have it work.
struct Endless(mpsc::Sender<Duration>);

#[async_trait]
impl agent_ttrpc::Agent for Endless {
    async fn wait(&self, context: &TtrpcContext, _: WaitRequest) -> ttrpc::Result<WaitResponse> {
        self.0.send(Duration::from_nanos(context.timeout_nano.unsigned_abs())).await.unwrap();
        std::future::pending().await
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
    fn pid(&self) -> u32 {
        0
    }

    async fn connect(&self, _: u32) -> io::Result<UnixStream> {
        let (near, far) = UnixStream::pair()?;
        let connections = futures::stream::iter([Ok(far)]);
        let mut server = Server::new()
            .add_listener(Listener::new(connections))
            .register_service(create_agent(Arc::new(Endless(self.patience.clone()))));
        server.start().await.map_err(io::Error::other)?;
        self.servers.lock().await.push(server);
        Ok(near)
    }

    async fn wait(&self) -> String {
        std::future::pending().await
    }

    async fn stop(&self, _: Duration) {}
}

#[tokio::test]
async fn a_wait_is_given_up_by_the_host_and_ends_with_the_vm() {
    let (patience, mut asked) = mpsc::channel(1);
    let gone = CancellationToken::new();
    let agent = Agent::new(Arc::new(Guest { patience, servers: Mutex::default() }), gone.clone());
    let process = ProcessRef { container: "c1".parse().unwrap(), exec: None };
    let waiting = tokio::spawn(async move { agent.wait(&process).await });
    let guests = asked.recv().await.unwrap();
    assert!(guests > calls::WAIT_TURN, "the guest would give up after {guests:?}, by its own clock");
    gone.cancel();
    let error = waiting.await.unwrap().unwrap_err();
    assert_eq!(error.to_string(), "wait: the VM has ended");
}
