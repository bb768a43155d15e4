//! Image volumes: an image's files, read-only, at a place of the container's own.

use std::{
    collections::BTreeMap,
    path::{Component, Path, PathBuf},
};

use a3s_box_proto::{cri, ports::IMAGE_MOUNT_LAYER};

use crate::{
    check,
    error::{SpecError, invalid},
};

/// The longest path that Linux takes, without its NUL.
const MAX_PATH: usize = 4095;

/// An image that is mounted.
#[derive(Debug)]
pub(crate) struct ImageVolume {
    /// The directory of the image that is seen; empty for all of it.
    pub sub_path: PathBuf,
    layers: Vec<PathBuf>,
}

impl ImageVolume {
    /// What a mount asks for, if that is an image. `field` names a field of it in an error.
    pub(crate) fn of(
        asked: &cri::Mount,
        images: &BTreeMap<String, Vec<PathBuf>>,
        field: impl Fn(&str) -> String,
    ) -> Result<Option<Self>, SpecError> {
        let Some(image) = &asked.image else {
            if asked.image_sub_path.is_empty() {
                return Ok(None);
            }
            return Err(invalid(field("image_sub_path"), "it needs an image"));
        };
        if image.image.is_empty() {
            return Err(invalid(field("image"), "it names no image"));
        }
        if !asked.host_path.is_empty() {
            return Err(invalid(field("host_path"), "a mount shows a host path or an image, not both"));
        }
        if !asked.readonly {
            return Err(invalid(field("readonly"), "an image can only be mounted with readonly = true"));
        }
        let Some(layers) = images.get(&image.image) else {
            let reason = format!("there is no image {}", check::shown(&image.image));
            return Err(invalid(field("image"), reason));
        };
        let sub_path = sub_path(&field("image_sub_path"), &asked.image_sub_path)?;
        Ok(Some(Self { sub_path, layers: layers.clone() }))
    }

    /// Its layers as options of the mount.
    pub(crate) fn layer_options(&self) -> Vec<String> {
        self.layers.iter().map(|layer| format!("{IMAGE_MOUNT_LAYER}{}", layer.display())).collect()
    }
}

/// By the letter only: the guest follows the image's symbolic links, and none that leads out of it.
fn sub_path(field: &str, value: &str) -> Result<PathBuf, SpecError> {
    check::text(field, value, MAX_PATH)?;
    let inside = |part| matches!(part, Component::Normal(_) | Component::CurDir);
    if !Path::new(value).components().all(inside) {
        let reason = format!("{} is not a relative path without \"..\"", check::shown(value));
        return Err(invalid(field, reason));
    }
    Ok(PathBuf::from(value))
}
