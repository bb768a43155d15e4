//! A streaming attach: joins a container's own process for as long as the client stays.

use std::sync::Arc;

use a3s_box_proto::ids::ContainerId;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::{copy, output::Input, remote_command::Client, request, resize::Sizes, status::Status};
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
    let (stdin, mut sizes) = (client.stdin.take(), client.sizes.take());
    let has_output = sockets.stdout.is_some() || sockets.stderr.is_some();
    // The shim ends each stream with the process.
    let never = CancellationToken::new();
    let outputs = async {
        tokio::try_join!(
            copy::output(sockets.stdout.as_ref(), client.stdout.as_mut(), &never),
            copy::output(sockets.stderr.as_ref(), client.stderr.as_mut(), &never),
        )?;
        until(has_output).await;
        Ok(())
    };
    let beside = async {
        tokio::join!(
            copy::input(sockets.stdin.as_ref(), stdin),
            resize(&shim, &container.id, sizes.as_mut())
        );
        until(!has_output).await;
    };
    tokio::select! { shown = outputs => shown, () = beside => Ok(()) }
}

/// Goes on where this end is that of the session, and never where the other one is.
async fn until(is_the_end: bool) {
    if !is_the_end {
        std::future::pending::<()>().await;
    }
}

async fn resize(shim: &Shim, container: &ContainerId, sizes: Option<&mut Sizes<Input>>) {
    let Some(sizes) = sizes else { return };
    while let Some(size) = sizes.next().await {
        if let Err(error) = shim.resize(container, None, size.width, size.height).await {
            debug!(%container, %error, "a terminal was not resized");
        }
    }
}
