//! Where the host connects. Whoever else may reach a vsock port of the guest is turned away.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use a3s_box_proto::stream::MAX_PACKET;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::{OwnedSemaphorePermit, Semaphore},
};
use tokio_vsock::{VMADDR_CID_ANY, VMADDR_CID_HOST, VsockAddr, VsockListener, VsockStream};

use crate::error::{Failed, Step};

/// After a failed accept (no descriptors, no memory) the next is tried this much later.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A listening port with a bound on its connections.
#[derive(Debug)]
pub struct HostListener {
    listener: VsockListener,
    room: Arc<Semaphore>,
}

/// A connection of the host's.
#[derive(Debug)]
pub struct HostConnection {
    stream: VsockStream,
    _place: OwnedSemaphorePermit,
}

impl HostListener {
    /// Listens.
    pub fn bind(port: u32, most_connections: usize) -> Result<Self, Failed> {
        let listener = VsockListener::bind(VsockAddr::new(VMADDR_CID_ANY, port))
            .step(|| format!("listen on vsock port {port}"))?;
        Ok(Self { listener, room: Arc::new(Semaphore::new(most_connections)) })
    }

    /// The next connection of the host's. What comes from elsewhere, or is too much, is closed. An error concerns one
    /// connection, not the service.
    pub async fn accept(&self) -> HostConnection {
        loop {
            let accepted = std::future::poll_fn(|context| self.listener.poll_accept(context)).await;
            let (stream, from) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!("accept a connection: {error}");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            if from.cid() != VMADDR_CID_HOST {
                tracing::warn!(cid = from.cid(), "refused a connection that is not the host's");
                continue;
            }
            match Arc::clone(&self.room).try_acquire_owned() {
                Ok(place) => return HostConnection { stream, _place: place },
                Err(_) => tracing::warn!("refused a connection: too many"),
            }
        }
    }
}

impl AsyncRead for HostConnection {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for HostConnection {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let bytes = &bytes[..bytes.len().min(MAX_PACKET)];
        Pin::new(&mut self.get_mut().stream).poll_write(context, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(context)
    }
}
