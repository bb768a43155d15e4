//! Images.

use std::collections::HashMap;

use a3s_box_image::Image;
use a3s_box_proto::cri;
use serde_json::json;

use crate::error::Error;

/// An image as ImageStatus and ListImages tell it.
pub fn item(image: &Image) -> cri::Image {
    let (uid, username) = user(image.config.config().as_ref().and_then(|config| config.user().as_deref()));
    cri::Image {
        id: image.id.clone(),
        repo_tags: image.repo_tags.clone(),
        repo_digests: image.repo_digests.clone(),
        size: image.size,
        uid: uid.map(|value| cri::Int64Value { value }),
        username,
        spec: None,
        pinned: image.pinned,
    }
}

/// The verbose part: the image's own configuration, where crictl looks for it, and the files of its layers, the lowest
/// first.
pub fn info(image: &Image) -> Result<HashMap<String, String>, Error> {
    let config = serde_json::to_value(image.config.as_ref())
        .map_err(|error| Error::Invalid(format!("image {}: {error}", image.id)))?;
    Ok(super::info(&json!({ "imageSpec": config, "layers": image.layers })))
}

/// `user[:group]`: a number goes into one field, a name into the other. Nothing at all means root.
fn user(text: Option<&str>) -> (Option<i64>, String) {
    let user = text.unwrap_or_default().split(':').next().unwrap_or_default();
    match user.parse::<i64>() {
        Ok(uid) => (Some(uid), String::new()),
        Err(_) if user.is_empty() => (Some(0), String::new()),
        Err(_) => (None, user.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_images_user_is_a_number_or_a_name() {
        assert_eq!(user(Some("1002")), (Some(1002), String::new()));
        assert_eq!(user(Some("1003:users")), (Some(1003), String::new()));
        assert_eq!(user(Some("www-data:100")), (None, "www-data".to_owned()));
        assert_eq!(user(None), (Some(0), String::new()));
        assert_eq!(user(Some("")), (Some(0), String::new()));
    }
}
