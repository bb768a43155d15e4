//! The block devices of the host that a container asks for.

use std::{collections::BTreeMap, io, os::unix::fs::FileTypeExt, os::unix::fs::MetadataExt};

use a3s_box_proto::cri::ContainerConfig;

use crate::error::Error;

/// Their numbers, by the paths in the configuration. What is none is left out: the specification says what it thinks
/// of it.
pub(super) async fn find(config: &ContainerConfig) -> Result<BTreeMap<String, (i64, i64)>, Error> {
    let mut found = BTreeMap::new();
    for device in &config.devices {
        let path = &device.host_path;
        if !path.starts_with('/') || path.contains('\0') {
            continue;
        }
        match tokio::fs::metadata(path).await {
            Ok(metadata) if metadata.file_type().is_block_device() => {
                let number = metadata.rdev();
                let (major, minor) = (rustix::fs::major(number), rustix::fs::minor(number));
                found.insert(path.clone(), (i64::from(major), i64::from(minor)));
            }
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(Error::file("look at device", path)(error));
            }
            _ => {}
        }
    }
    Ok(found)
}
