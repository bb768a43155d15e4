//! The block devices of the host that a container asks for.

use std::{collections::BTreeMap, os::unix::fs::FileTypeExt, os::unix::fs::MetadataExt};

use a3s_box_proto::cri::ContainerConfig;

use crate::{error::Error, node::files};

/// Their numbers, by the paths in the configuration. What is none is left out: the specification says what it thinks
/// of it.
pub(super) async fn find(config: &ContainerConfig) -> Result<BTreeMap<String, (i64, i64)>, Error> {
    let mut found = BTreeMap::new();
    for device in &config.devices {
        let path = &device.host_path;
        if !path.starts_with('/') || path.contains('\0') {
            continue;
        }
        let file = files::look_at(path.into()).await?;
        if let Some(device) = file.filter(|file| file.file_type().is_block_device()) {
            let (major, minor) = (rustix::fs::major(device.rdev()), rustix::fs::minor(device.rdev()));
            found.insert(path.clone(), (i64::from(major), i64::from(minor)));
        }
    }
    Ok(found)
}
