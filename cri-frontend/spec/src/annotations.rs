//! Annotations of the specification, under containerd's names.

use std::collections::HashMap;

use crate::{
    Input, check,
    error::{SpecError, invalid},
    resources::PREFIX,
};

/// What tools that look at a bundle expect to find.
pub(crate) fn annotations(input: &Input<'_>) -> Result<HashMap<String, String>, SpecError> {
    if let Some(key) = input.container.annotations.keys().find(|key| key.starts_with(PREFIX)) {
        let reason = format!("{} belongs into the pod's annotations", check::shown(key));
        return Err(invalid("annotations", reason));
    }
    let pod = input.sandbox.metadata.clone().unwrap_or_default();
    let container = input.container.metadata.clone().unwrap_or_default();
    let asked_for = input.container.image.as_ref().map(|image| image.user_specified_image.as_str());
    let image = asked_for.filter(|name| !name.is_empty()).unwrap_or(input.image_name);
    let values = [
        ("container-type", "container"),
        ("sandbox-id", input.sandbox_id.as_str()),
        ("sandbox-namespace", &pod.namespace),
        ("sandbox-name", &pod.name),
        ("sandbox-uid", &pod.uid),
        ("container-name", &container.name),
        ("image-name", image),
    ];
    let named = |(key, value): (&str, &str)| (format!("io.kubernetes.cri.{key}"), value.to_owned());
    Ok(values.into_iter().map(named).collect())
}
