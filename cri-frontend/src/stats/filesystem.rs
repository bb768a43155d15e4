//! What the pods' scratch disks take of the node's file system.

use a3s_box_image::Usage;
use tokio::task::spawn_blocking;

use crate::{error::Error, node::Node};

/// The scratch disks of all pods.
pub async fn of_pods(node: &Node) -> Result<Usage, Error> {
    let root = node.config.root_dir.join("pods");
    let shown = root.clone();
    match spawn_blocking(move || Usage::of_tree(&root)).await {
        Ok(usage) => usage.map_err(Error::file("measure", shown)),
        Err(ended) => Err(Error::Abandoned(ended.to_string())),
    }
}
