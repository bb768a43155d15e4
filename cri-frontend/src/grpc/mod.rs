//! The CRI endpoint: decode, call the domain, encode.

mod convert;
mod image;
mod pages;
mod runtime;
pub mod socket;
mod status_code;

use std::{io, sync::Arc};

use a3s_box_proto::cri::{
    image_service_server::ImageServiceServer, runtime_service_server::RuntimeServiceServer,
};
use tokio::net::UnixListener;
use tokio_stream::{StreamExt, wrappers::UnixListenerStream};
use tonic::transport::Server;

use crate::node::Node;

/// The largest message in either direction, as kubelet has it.
const MESSAGE_BYTES: usize = 16 * 1024 * 1024;

/// Serves until the node is told to end and the calls in progress are answered.
pub async fn serve(
    node: Arc<Node>,
    listener: UnixListener,
    owner: socket::Owner,
) -> Result<(), tonic::transport::Error> {
    let runtime = RuntimeServiceServer::new(runtime::Runtime(node.clone()))
        .max_decoding_message_size(MESSAGE_BYTES)
        .max_encoding_message_size(MESSAGE_BYTES);
    let images = ImageServiceServer::new(image::Images(node.clone()))
        .max_decoding_message_size(MESSAGE_BYTES)
        .max_encoding_message_size(MESSAGE_BYTES);
    let admitted = UnixListenerStream::new(listener).filter(move |stream: &io::Result<_>| match stream {
        Ok(stream) => owner.admits(stream),
        Err(_) => true,
    });
    Server::builder()
        .add_service(runtime)
        .add_service(images)
        .serve_with_incoming_shutdown(admitted, node.shutdown.cancelled())
        .await
}
