//! The processors and memory nodes of the host that a container may name.

use std::io;

use a3s_box_proto::{cri::ContainerConfig, id_set::IdSet};

use crate::error::Error;

/// Refuses a container that names what the host lacks: its kernel would do so only when the container starts.
pub(super) async fn check(config: &ContainerConfig) -> Result<(), Error> {
    let Some(resources) = config.linux.as_ref().and_then(|linux| linux.resources.as_ref()) else {
        return Ok(());
    };
    for (field, wanted, kind) in
        [("cpuset_cpus", &resources.cpuset_cpus, "cpu"), ("cpuset_mems", &resources.cpuset_mems, "node")]
    {
        if wanted.is_empty() {
            continue;
        }
        let wanted: IdSet = wanted.parse().map_err(|error| Error::Invalid(format!("{field}: {error}")))?;
        let there = online(kind).await?;
        let missing = wanted.without(&there);
        if !missing.is_empty() {
            return Err(Error::Invalid(format!(
                "{field} {wanted}: this host has no {kind} {missing}, it has {there}"
            )));
        }
    }
    Ok(())
}

async fn online(kind: &str) -> Result<IdSet, Error> {
    let path = format!("/sys/devices/system/{kind}/online");
    let list = match tokio::fs::read_to_string(&path).await {
        // A kernel without NUMA has one node and does not list it.
        Err(error) if error.kind() == io::ErrorKind::NotFound => "0".to_owned(),
        other => other.map_err(Error::file("read", &path))?,
    };
    list.parse().map_err(|error| Error::file("read", &path)(io::Error::other(error)))
}

#[cfg(test)]
mod tests {
    use a3s_box_proto::cri::{LinuxContainerConfig, LinuxContainerResources};

    use super::*;

    fn config(cpus: &str, mems: &str) -> ContainerConfig {
        let resources = LinuxContainerResources {
            cpuset_cpus: cpus.into(),
            cpuset_mems: mems.into(),
            ..Default::default()
        };
        let linux = LinuxContainerConfig { resources: Some(resources), ..Default::default() };
        ContainerConfig { linux: Some(linux), ..Default::default() }
    }

    #[tokio::test]
    async fn only_what_the_host_lacks_is_refused() {
        check(&ContainerConfig::default()).await.unwrap();
        check(&config("", "")).await.unwrap();
        check(&config("0", "0")).await.unwrap();
        for (cpus, mems, words) in
            [("0,8191", "", ["cpuset_cpus", "8191"]), ("", "4095", ["cpuset_mems", "4095"])]
        {
            let error = check(&config(cpus, mems)).await.unwrap_err().to_string();
            assert!(words.iter().all(|word| error.contains(word)), "{error}");
        }
    }
}
