//! A streaming attach: joins a container's own process for as long as the client stays.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::{copy, remote_command::Client, request, status::Status};
use crate::{
    container::{exec::Sockets, shim_socket::unused_name},
    error::Error,
    node::Node,
    shim::{AttachTo, Shim},
};

/// Serves a client until the process ends or the client leaves, which the process does not notice.
pub async fn serve(node: &Arc<Node>, wanted: request::Attach, mut client: Client) {
    let gone = client.gone();
    let joined = tokio::select! {
        biased;
        joined = join(node, &wanted, &mut client) => joined,
        () = gone.cancelled() => {
            debug!(container = %wanted.container.id, "an attached client has gone");
            return;
        }
    };
    let status = match joined {
        Ok(()) => Status::Success,
        Err(error) => Status::Failure(format!("error attaching to container: {error}")),
    };
    client.finish(status).await;
}

async fn join(node: &Arc<Node>, wanted: &request::Attach, client: &mut Client) -> Result<(), Error> {
    let container = &wanted.container;
    let sandbox = container.pod(node)?;
    let shim = sandbox.shim()?;
    let sockets = Sockets::listen(&sandbox, wanted.streams, &unused_name())?;
    let attach = AttachTo {
        container: &container.id,
        stdin: Sockets::endpoint(sockets.stdin.as_ref()),
        stdout: Sockets::endpoint(sockets.stdout.as_ref()),
        stderr: Sockets::endpoint(sockets.stderr.as_ref()),
    };
    shim.attach(attach).await?;
    let (stdin, sizes) = (client.stdin.take(), client.sizes.take());
    // The shim ends each stream with the process.
    let never = CancellationToken::new();
    let outputs = async {
        tokio::join!(
            copy::output(sockets.stdout.as_ref(), client.stdout.as_mut(), &never),
            copy::output(sockets.stderr.as_ref(), client.stderr.as_mut(), &never),
        );
    };
    let has_output = sockets.stdout.is_some() || sockets.stderr.is_some();
    let input = async {
        copy::input(sockets.stdin.as_ref(), stdin).await;
        if has_output {
            std::future::pending::<()>().await;
        }
    };
    let resizing = async {
        let Some(mut sizes) = sizes else { return };
        while let Some(size) = sizes.next().await {
            resize(&shim, wanted, size.width, size.height).await;
        }
    };
    let until_end = async {
        if has_output {
            outputs.await;
        } else {
            std::future::pending::<()>().await;
        }
    };
    let beside = async {
        resizing.await;
        std::future::pending::<()>().await;
    };
    tokio::select! { () = until_end => {} () = input => {} () = beside => {} }
    Ok(())
}

async fn resize(shim: &Shim, wanted: &request::Attach, width: u16, height: u16) {
    if let Err(error) = shim.resize(&wanted.container.id, None, width, height).await {
        debug!(container = %wanted.container.id, %error, "a terminal was not resized");
    }
}
