//! The images that a container mounts as volumes: found when it is made, in use until it is removed.

use std::collections::BTreeMap;

use a3s_box_image::Image;
use a3s_box_proto::{cri::ContainerConfig, ids::ContainerId};

use super::ContainerRecord;
use crate::{error::Error, node::Node};

/// The images that a configuration mounts, by the names in it.
pub fn find(node: &Node, config: &ContainerConfig) -> Result<BTreeMap<String, Image>, Error> {
    let mounted = config.mounts.iter().filter_map(|mount| mount.image.as_ref());
    let names = mounted.map(|image| image.image.as_str()).filter(|name| !name.is_empty());
    let image = |name: &str| {
        let found = node.images.find(name)?;
        let image = found.ok_or_else(|| Error::NotFound { what: "image", id: name.to_owned() })?;
        Ok((name.to_owned(), image))
    };
    names.map(image).collect()
}

/// The images that a container's record says it mounts, by the names in its configuration.
pub fn held(node: &Node, record: &ContainerRecord) -> Result<BTreeMap<String, Image>, Error> {
    let image = |(name, id): (&String, &String)| {
        let found = node.images.held(&holder(&record.id, id));
        let image = found.ok_or_else(|| Error::NotFound { what: "image", id: id.clone() })?;
        Ok((name.clone(), image))
    };
    record.image_volumes.iter().map(image).collect()
}

/// Notes that a container uses images.
pub fn hold<'a>(
    node: &Node,
    container: &ContainerId,
    images: impl IntoIterator<Item = &'a String>,
) -> Result<(), Error> {
    for id in images {
        node.images.hold(id, &holder(container, id))?;
    }
    Ok(())
}

/// Notes that a container does not use them any more.
pub fn release<'a>(node: &Node, container: &ContainerId, images: impl IntoIterator<Item = &'a String>) {
    for id in images {
        node.images.release(&holder(container, id));
    }
}

/// A holder has one image, and the container itself has its root filesystem's.
fn holder(container: &ContainerId, image: &str) -> String {
    format!("{container}/{image}")
}
