//! What the pods' scratch disks take of the node's file system.

use a3s_box_image::Usage;

use crate::{
    error::Error,
    node::{Node, blocking::blocking},
};

/// The scratch disks of all pods.
pub async fn of_pods(node: &Node) -> Result<Usage, Error> {
    let root = node.config.root_dir.join("pods");
    let shown = root.clone();
    blocking(move || Usage::of_tree(&root)).await?.map_err(Error::file("measure", shown))
}
