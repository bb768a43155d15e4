//! The end of containers whose pod is gone.

use std::sync::Arc;

use serde::Deserialize;

use super::{Container, Exit, persist_all, record::exit_code};
use crate::{
    error::Error,
    node::{Node, files},
};

/// The shim's durable record of how a container ended, in the container's directory.
const EXIT_FILE: &str = "exit.json";

/// Ends in the records all that was started and has no exit yet.
pub async fn end_all(node: &Node, containers: &[Arc<Container>], exit: &Exit) -> Result<(), Error> {
    let mut ended = containers.to_vec();
    ended.retain(|container| {
        node.change_container(container, |record| {
            let ends = !record.state.is_idle();
            if ends {
                record.state.exit(exit.clone());
            }
            ends
        })
    });
    persist_all(node, &ended).await
}

/// What stands in [`EXIT_FILE`].
#[derive(Debug, Deserialize)]
struct ExitFile {
    code: u32,
    exited_at_unix_nanos: i64,
    reason: String,
    message: String,
}

/// Takes over the exits that a shim wrote down before it ended itself.
pub async fn read_exits(node: &Node, containers: &[Arc<Container>]) -> Result<(), Error> {
    for container in containers {
        if container.record.with(|record| record.state.is_exited()) {
            continue;
        }
        let Some(told) = files::read_json_async::<ExitFile>(container.bundle.join(EXIT_FILE)).await? else {
            continue;
        };
        let exit = Exit {
            code: exit_code(told.code),
            finished_at: told.exited_at_unix_nanos,
            reason: told.reason,
            message: told.message,
        };
        node.change_container(container, |record| record.state.exit(exit));
        container.record.persist(&node.db).await?;
    }
    Ok(())
}
