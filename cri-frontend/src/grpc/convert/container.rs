//! Containers.

use std::collections::HashMap;

use a3s_box_proto::cri;
use a3s_box_spec::applied;
use serde_json::json;

use super::{RUNTIME_TYPE, signal};
use crate::{
    container::{Container, ContainerRecord, ContainerState, list::Filter, record::Stage},
    error::Error,
    node::Node,
};

/// What ContainerStatus tells.
pub fn of_record(record: &ContainerRecord) -> cri::ContainerStatus {
    let (started_at, exit) = match &record.state {
        ContainerState::Created | ContainerState::Starting => (0, None),
        ContainerState::Running { started_at } => (*started_at, None),
        ContainerState::Exited { started_at, exit } => (*started_at, Some(exit.clone())),
    };
    let config = &record.config;
    let resources = config.linux.as_ref().and_then(|linux| linux.resources.as_ref()).map(applied);
    let user = record.user.as_ref().map(|user| cri::LinuxContainerUser {
        uid: user.uid.into(),
        gid: user.gid.into(),
        supplemental_groups: user.supplemental_groups.iter().copied().map(i64::from).collect(),
    });
    cri::ContainerStatus {
        id: record.id.to_string(),
        metadata: config.metadata.clone(),
        state: state(record).into(),
        created_at: record.created_at,
        started_at,
        finished_at: exit.as_ref().map_or(0, |exit| exit.finished_at),
        exit_code: exit.as_ref().map_or(0, |exit| exit.code),
        reason: exit.as_ref().map(|exit| exit.reason.clone()).unwrap_or_default(),
        message: exit.map(|exit| exit.message).unwrap_or_default(),
        image: Some(image(record)),
        image_ref: record.image.reference.clone(),
        image_id: record.image.id.clone(),
        labels: config.labels.clone(),
        annotations: config.annotations.clone(),
        mounts: config.mounts.iter().map(|mount| told_mount(mount, record)).collect(),
        log_path: record.log_path.clone().unwrap_or_default(),
        resources: resources.map(|linux| cri::ContainerResources { linux: Some(linux), windows: None }),
        user: user.map(|linux| cri::ContainerUser { linux: Some(linux) }),
        stop_signal: signal::from_number(record.stop_signal.number).into(),
    }
}

/// The verbose part, under the names that tools know from containerd. A container's process has no id on the host: the
/// process there that runs it is its VM's.
pub async fn info(node: &Node, container: &Container) -> Result<HashMap<String, String>, Error> {
    let (config, sandbox) = container.record.with(|record| (record.config.clone(), record.sandbox.clone()));
    let running = container.record.with(|record| record.state.is_running());
    let vm = container.pod(node)?.vm();
    Ok(super::info(&json!({
        "sandboxID": sandbox,
        "pid": vm.filter(|_| running).map_or(0, |vm| vm.pid),
        "runtimeType": RUNTIME_TYPE,
        "config": *config,
        "runtimeSpec": container.spec().await?,
        "stateDir": container.bundle,
    })))
}

/// An item of ListContainers. Its image reference is the image's id, as containerd and CRI-O list it; a status names the digest.
pub fn item(record: &ContainerRecord) -> cri::Container {
    cri::Container {
        id: record.id.to_string(),
        pod_sandbox_id: record.sandbox.to_string(),
        metadata: record.config.metadata.clone(),
        image: Some(image(record)),
        image_ref: record.image.id.clone(),
        state: state(record).into(),
        created_at: record.created_at,
        labels: record.config.labels.clone(),
        annotations: record.config.annotations.clone(),
        image_id: record.image.id.clone(),
    }
}

/// What ListContainers was asked for; nothing can be in the unknown state.
pub fn filter(filter: cri::ContainerFilter) -> Result<Option<Filter>, Error> {
    let stage = match filter.state {
        None => None,
        Some(value) => Some(match cri::ContainerState::try_from(value.state) {
            Ok(cri::ContainerState::ContainerCreated) => Stage::Created,
            Ok(cri::ContainerState::ContainerRunning) => Stage::Running,
            Ok(cri::ContainerState::ContainerExited) => Stage::Exited,
            Ok(cri::ContainerState::ContainerUnknown) => return Ok(None),
            Err(_) => return Err(Error::Invalid(format!("unknown container state {}", value.state))),
        }),
    };
    Ok(Some(Filter { id: filter.id, sandbox: filter.pod_sandbox_id, stage, labels: filter.label_selector }))
}

/// What ListContainerStats was asked for.
pub fn stats_filter(filter: cri::ContainerStatsFilter) -> Filter {
    Filter { id: filter.id, sandbox: filter.pod_sandbox_id, stage: None, labels: filter.label_selector }
}

fn state(record: &ContainerRecord) -> cri::ContainerState {
    match record.stage() {
        Stage::Created => cri::ContainerState::ContainerCreated,
        Stage::Running => cri::ContainerState::ContainerRunning,
        Stage::Exited => cri::ContainerState::ContainerExited,
    }
}

/// As it was asked for; of an image also which one it was.
fn told_mount(mount: &cri::Mount, record: &ContainerRecord) -> cri::Mount {
    let mut mount = mount.clone();
    if let Some(image) = &mut mount.image
        && let Some(id) = record.image_volumes.get(&image.image)
    {
        image.image_ref.clone_from(id);
    }
    mount
}

fn image(record: &ContainerRecord) -> cri::ImageSpec {
    let asked = record.config.image.clone().unwrap_or_default();
    cri::ImageSpec { image: record.image.name.clone(), ..asked }
}
