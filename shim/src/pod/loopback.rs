//! Forwards into the pod what is dialled on the loopback of its network namespace on the host: for containerd, which
//! knows no other way to forward a port.

use std::{io, sync::Arc, time::Duration};

use rustix::net::sockopt::set_socket_linger;
use tokio::{net::TcpStream, sync::Semaphore, task::JoinSet, time::sleep};
use tracing::{debug, warn};

use super::{
    Pod,
    forward::{between, dial},
    sandbox::Sandbox,
};
use crate::{network::Loopback, sys::namespace};

/// After a connection could not be taken: the shim may have no descriptor left.
const PAUSE: Duration = Duration::from_millis(100);

impl Pod {
    /// Forwards until the VM ends. Where the host does not allow it the pod runs all the same.
    pub(super) async fn serve_loopback(&self, sandbox: &Arc<Sandbox>) {
        let Some(path) = &sandbox.spec.netns else { return };
        let loopback = async { Loopback::take(namespace::open(&self.host, path).await?).await };
        let loopback = match loopback.await {
            Ok(loopback) => loopback,
            Err(error) => {
                warn!(%error, "no port of this pod can be forwarded: sk_lookup programs need Linux 5.9 and bpf(2)");
                return;
            }
        };
        let (sandbox, places) = (sandbox.clone(), self.forwards.clone());
        self.carry(async move {
            tokio::select! {
                _ = sandbox.died() => {}
                () = forward_all(&loopback, &sandbox, &places) => {}
            }
        });
    }
}

/// The connections end with this.
async fn forward_all(loopback: &Loopback, sandbox: &Arc<Sandbox>, places: &Arc<Semaphore>) {
    let mut connections = JoinSet::new();
    loop {
        // Whoever dials while there is no place waits in the listener's queue. The places are never closed.
        let Ok(place) = places.clone().acquire_owned().await else { return };
        match loopback.accept().await {
            Ok((client, port)) => {
                let sandbox = sandbox.clone();
                connections.spawn(async move {
                    let _place = place;
                    forward(&sandbox, client, port).await;
                });
            }
            Err(error) => {
                warn!(%error, "a connection to the pod's loopback was not taken");
                sleep(PAUSE).await;
            }
        }
        while connections.try_join_next().is_some() {}
    }
}

/// A connection that the pod refuses or breaks is reset: its client was told before that it is open.
async fn forward(sandbox: &Arc<Sandbox>, mut client: TcpStream, port: u16) {
    let forwarded = async {
        let connection = dial(sandbox, port.into()).await?;
        let (mut from_client, mut to_client) = client.split();
        between(connection, &sandbox.share.bulk(), &mut from_client, &mut to_client).await?;
        Ok::<(), Box<dyn std::error::Error + Send + Sync>>(())
    };
    if let Err(error) = forwarded.await {
        debug!(port, %error, "a forwarded connection broke off");
        let reset: io::Result<()> = set_socket_linger(&client, Some(Duration::ZERO)).map_err(Into::into);
        if let Err(error) = reset {
            debug!(port, %error, "it ends as if it were whole");
        }
    }
}
