//! Pod sandboxes.

use std::collections::HashMap;

use a3s_box_proto::cri;
use serde_json::json;

use super::{RUNTIME_TYPE, container, info};
use crate::{
    clock::unix_nanos,
    error::Error,
    node::Node,
    sandbox::{Phase, Sandbox, SandboxRecord, list::Filter},
};

/// The answer of PodSandboxStatus, with the containers' statuses of the same moment.
pub fn status(node: &Node, sandbox: &Sandbox, verbose: bool) -> cri::PodSandboxStatusResponse {
    let timestamp = unix_nanos();
    let record = sandbox.record.get();
    let containers = node.containers_of(sandbox);
    cri::PodSandboxStatusResponse {
        status: Some(of_record(&record)),
        info: if verbose { details(node, sandbox, &record) } else { HashMap::new() },
        containers_statuses: containers.iter().map(|one| one.record.with(container::of_record)).collect(),
        timestamp,
    }
}

/// What PodSandboxStatus tells.
pub fn of_record(record: &SandboxRecord) -> cri::PodSandboxStatus {
    let mut ips = record.ips.iter().map(ToString::to_string);
    let network = cri::PodSandboxNetworkStatus {
        ip: ips.next().unwrap_or_default(),
        additional_ips: ips.map(|ip| cri::PodIp { ip }).collect(),
    };
    let security = record.config.linux.as_ref().and_then(|linux| linux.security_context.clone());
    let options = security.and_then(|security| security.namespace_options).unwrap_or_default();
    let linux = cri::LinuxPodSandboxStatus { namespaces: Some(cri::Namespace { options: Some(options) }) };
    cri::PodSandboxStatus {
        id: record.id.to_string(),
        metadata: record.config.metadata.clone(),
        state: state(record).into(),
        created_at: record.created_at,
        network: Some(network),
        linux: Some(linux),
        labels: record.config.labels.clone(),
        annotations: record.config.annotations.clone(),
        runtime_handler: record.handler.clone(),
    }
}

/// An item of ListPodSandbox.
pub fn item(sandbox: &Sandbox) -> cri::PodSandbox {
    sandbox.record.with(|record| cri::PodSandbox {
        id: record.id.to_string(),
        metadata: record.config.metadata.clone(),
        state: state(record).into(),
        created_at: record.created_at,
        labels: record.config.labels.clone(),
        annotations: record.config.annotations.clone(),
        runtime_handler: record.handler.clone(),
    })
}

/// What ListPodSandbox was asked for.
pub fn filter(filter: cri::PodSandboxFilter) -> Result<Filter, Error> {
    let ready = match filter.state {
        None => None,
        Some(value) => Some(match cri::PodSandboxState::try_from(value.state) {
            Ok(cri::PodSandboxState::SandboxReady) => true,
            Ok(cri::PodSandboxState::SandboxNotready) => false,
            Err(_) => return Err(Error::Invalid(format!("unknown pod sandbox state {}", value.state))),
        }),
    };
    Ok(Filter { id: filter.id, ready, labels: filter.label_selector })
}

/// What ListPodSandboxStats was asked for: only what is ready has figures.
pub fn stats_filter(filter: cri::PodSandboxStatsFilter) -> Filter {
    Filter { id: filter.id, ready: Some(true), labels: filter.label_selector }
}

fn state(record: &SandboxRecord) -> cri::PodSandboxState {
    if record.is_ready() { cri::PodSandboxState::SandboxReady } else { cri::PodSandboxState::SandboxNotready }
}

fn details(node: &Node, sandbox: &Sandbox, record: &SandboxRecord) -> HashMap<String, String> {
    let reason = match &record.phase {
        Phase::Dead { reason } => reason.as_str(),
        Phase::Creating | Phase::Ready | Phase::Stopped => "",
    };
    let vm = sandbox.vm().filter(|_| record.is_ready());
    info(&json!({
        "reason": reason,
        "pid": vm.as_ref().map_or(0, |vm| vm.pid),
        "runtimeHandler": record.handler,
        "runtimeType": RUNTIME_TYPE,
        "netns": sandbox.netns.path(),
        "stateDir": sandbox.bundle,
        "scratchDir": sandbox.root,
        "shim": node.config.cri.shim,
        "ips": record.ips,
        "vm": vm,
        "config": *record.config,
    }))
}
