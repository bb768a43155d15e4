//! The CRI endpoint: decode, call the domain, encode.

mod convert;
mod deadline;
mod image;
mod pages;
mod runtime;
pub mod socket;
mod status_code;
#[cfg(test)]
mod tests;

use std::{io, sync::Arc, time::Duration};

use a3s_box_proto::cri::{
    image_service_server::ImageServiceServer, runtime_service_server::RuntimeServiceServer,
};
use tokio::{
    net::{UnixListener, UnixStream},
    time::sleep,
};
use tokio_stream::{StreamExt, wrappers::UnixListenerStream};
use tonic::transport::Server;
use tracing::warn;

use self::deadline::InTime;
use crate::node::Node;

/// The largest message in either direction, as kubelet has it.
const MESSAGE_BYTES: usize = 16 * 1024 * 1024;
/// After a failed accept the next is tried this much later.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves until the node is told to end and the calls in progress are answered.
pub async fn serve(
    node: Arc<Node>,
    listener: UnixListener,
    gate: socket::Gate,
) -> Result<(), tonic::transport::Error> {
    let runtime = RuntimeServiceServer::new(runtime::Runtime(node.clone()))
        .max_decoding_message_size(MESSAGE_BYTES)
        .max_encoding_message_size(MESSAGE_BYTES);
    let images = ImageServiceServer::new(image::Images(node.clone()))
        .max_decoding_message_size(MESSAGE_BYTES)
        .max_encoding_message_size(MESSAGE_BYTES);
    let admitted = UnixListenerStream::new(listener).then(after_pause).filter(move |stream| match stream {
        Ok(stream) => gate.admits(stream),
        Err(_) => true,
    });
    Server::builder()
        .add_service(InTime(runtime))
        .add_service(InTime(images))
        .serve_with_incoming_shutdown(admitted, node.shutdown.cancelled())
        .await
}

/// A failed accept is repeated at once, and would fail at once, as long as there are no descriptors.
async fn after_pause(accepted: io::Result<UnixStream>) -> io::Result<UnixStream> {
    if let Err(error) = &accepted {
        warn!(%error, "a client of the CRI was not accepted");
        sleep(ACCEPT_PAUSE).await;
    }
    accepted
}
