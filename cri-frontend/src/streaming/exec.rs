//! A streaming exec: runs a process, carries its streams, tells its exit code.

use std::{sync::Arc, time::Duration};

use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::{
    copy,
    output::Input,
    remote_command::Client,
    request,
    resize::{Size, Sizes},
    status::Status,
};
use crate::{
    container::exec::{Exec, Sockets},
    error::Error,
    node::Node,
};

/// Clients tell a terminal's size right after the connection stands; a process begins with it if it is so quick.
const FIRST_SIZE: Duration = Duration::from_millis(100);

/// Serves a client to the end of its process, or to its own leaving.
pub async fn serve(node: &Arc<Node>, wanted: request::Exec, mut client: Client) {
    let status = match Exec::prepare(node, &wanted.container, &wanted.command, wanted.streams).await {
        Ok((exec, sockets)) => converse(exec, sockets, &mut client).await,
        Err(error) => Some(failure(&error)),
    };
    // Nobody is left to be told.
    if let Some(status) = status {
        client.finish(status).await;
    }
}

async fn converse(mut exec: Exec, sockets: Sockets, client: &mut Client) -> Option<Status> {
    let gone = client.gone();
    let stdin = client.stdin.take();
    let mut sizes = client.sizes.take();
    if let Some(size) = first_size(sizes.as_mut()).await {
        exec.set_terminal_size(size.width, size.height);
    }
    let result = tokio::select! {
        biased;
        result = complete(&exec, &sockets, client, stdin, sizes.as_mut()) => Some(result),
        () = gone.cancelled() => None,
    };
    match result {
        Some(Ok(0)) => Some(Status::Success),
        Some(Ok(code)) => Some(Status::Exit(code)),
        Some(Err(error)) => {
            // It may run all the same, with nobody who reads its output.
            exec.hang_up().await;
            Some(failure(&error))
        }
        None => {
            debug!(container = %exec.container.id, exec = %exec.id, "an exec's client has gone");
            exec.hang_up().await;
            None
        }
    }
}

/// To the exit, and to the end of the output.
async fn complete(
    exec: &Exec,
    sockets: &Sockets,
    client: &mut Client,
    stdin: Option<Input>,
    sizes: Option<&mut Sizes<Input>>,
) -> Result<i32, Error> {
    let ended = CancellationToken::new();
    let process = async {
        exec.start(sockets).await?;
        let code = exec.wait().await;
        ended.cancel();
        code
    };
    let outputs = async {
        let carried = tokio::try_join!(
            copy::output(sockets.stdout.as_ref(), client.stdout.as_mut(), &ended),
            copy::output(sockets.stderr.as_ref(), client.stderr.as_mut(), &ended),
        );
        match carried {
            Ok(_) => Ok(()),
            Err(error) => Err(exec.broken_off(error).await),
        }
    };
    let whole = async { tokio::try_join!(process, outputs) };
    // Neither the input's end nor that of the sizes is the session's.
    let beside = async {
        let resizing = async {
            exec.started().await;
            resize(exec, sizes).await;
        };
        tokio::join!(copy::input(sockets.stdin.as_ref(), stdin), resizing);
        std::future::pending().await
    };
    tokio::select! {
        result = whole => Ok(result?.0),
        never = beside => never,
    }
}

async fn first_size(sizes: Option<&mut Sizes<Input>>) -> Option<Size> {
    timeout(FIRST_SIZE, sizes?.next()).await.ok().flatten()
}

async fn resize(exec: &Exec, sizes: Option<&mut Sizes<Input>>) {
    let Some(sizes) = sizes else { return };
    while let Some(size) = sizes.next().await {
        if let Err(error) = exec.resize(size.width, size.height).await {
            debug!(container = %exec.container.id, %error, "a terminal was not resized");
        }
    }
}

fn failure(error: &Error) -> Status {
    Status::Failure(format!("error executing command in container: {error}"))
}
