//! Requests and what becomes of them.

mod identity;
mod mounts;
mod process;
mod resources;
mod security;

use std::{
    collections::{HashMap, HashSet},
    path::Path,
};

use a3s_box_proto::{
    cri::{
        self, Capability as Capabilities, Int64Value, LinuxContainerResources, LinuxContainerSecurityContext,
        NamespaceMode, NamespaceOption, SecurityProfile, security_profile::ProfileType,
    },
    ports::POD_PID_NAMESPACE,
};
use oci_spec::runtime::{Capability, LinuxNamespaceType, LinuxSeccompAction, Mount, Process};
use serde_json::{Value, json};

use super::*;

/// A request, begun with what every one has.
struct Request {
    container: cri::ContainerConfig,
    sandbox: cri::PodSandboxConfig,
    image: ImageConfiguration,
}

impl Request {
    fn new() -> Self {
        let linux = cri::LinuxContainerConfig {
            resources: Some(LinuxContainerResources::default()),
            security_context: Some(LinuxContainerSecurityContext::default()),
        };
        let container = cri::ContainerConfig {
            metadata: Some(cri::ContainerMetadata { name: "web".into(), attempt: 0 }),
            command: vec!["/bin/web".into()],
            linux: Some(linux),
            ..Default::default()
        };
        let metadata = cri::PodSandboxMetadata {
            name: "pod".into(),
            namespace: "default".into(),
            uid: "u-1".into(),
            attempt: 0,
        };
        let sandbox = cri::PodSandboxConfig {
            metadata: Some(metadata),
            hostname: "pod-host".into(),
            ..Default::default()
        };
        Self { container, sandbox, image: image(&json!({})) }
    }

    fn security(&mut self) -> &mut LinuxContainerSecurityContext {
        self.container.linux.as_mut().unwrap().security_context.as_mut().unwrap()
    }

    fn resources(&mut self) -> &mut LinuxContainerResources {
        self.container.linux.as_mut().unwrap().resources.as_mut().unwrap()
    }

    fn make_privileged(&mut self) {
        self.security().privileged = true;
        let context = cri::LinuxSandboxSecurityContext { privileged: true, ..Default::default() };
        self.sandbox.linux =
            Some(cri::LinuxPodSandboxConfig { security_context: Some(context), ..Default::default() });
    }

    fn spec(&self) -> Result<ContainerSpec, SpecError> {
        container_spec(&Input {
            container: &self.container,
            sandbox: &self.sandbox,
            image: &self.image,
            image_name: "example.com/web:1",
            sandbox_id: &"5a".parse().unwrap(),
            container_id: &"c0".parse().unwrap(),
            image_volumes: &BTreeMap::from([(
                "example.com/data:1".to_owned(),
                vec!["/layers/0.erofs".into(), "/layers/1.erofs".into()],
            )]),
            block_devices: &BTreeMap::from([("/dev/loop7".to_owned(), (7, 7))]),
            private_dirs: &["/var/lib/a3s-box".into(), "/run/a3s-box".into()],
            seccomp_profile: None,
            pids: &Pids { default: 100, max: 1000 },
        })
    }
}

fn image(config: &Value) -> ImageConfiguration {
    let image = json!({"architecture": "amd64", "os": "linux", "config": config,
                       "rootfs": {"type": "layers", "diff_ids": []}});
    serde_json::from_value(image).unwrap()
}

fn with(change: impl FnOnce(&mut Request)) -> ContainerSpec {
    let mut request = Request::new();
    change(&mut request);
    request.spec().unwrap()
}

/// A refusal, which names what it is about.
fn refused(words: &[&str], change: impl FnOnce(&mut Request)) {
    let mut request = Request::new();
    change(&mut request);
    let error = request.spec().unwrap_err().to_string();
    for word in words {
        assert!(error.contains(word), "{word:?} is missing in: {error}");
    }
    assert!(error.len() < 1000 && !error.contains(char::is_control), "{error:?}");
}

fn process(spec: &ContainerSpec) -> &Process {
    spec.spec.process().as_ref().unwrap()
}

fn linux(spec: &ContainerSpec) -> &Linux {
    spec.spec.linux().as_ref().unwrap()
}

fn mount<'a>(spec: &'a ContainerSpec, destination: &str) -> &'a Mount {
    let mounts = spec.spec.mounts().as_ref().unwrap();
    mounts.iter().find(|mount| mount.destination() == Path::new(destination)).unwrap()
}

fn destinations(spec: &ContainerSpec) -> Vec<&str> {
    spec.spec.mounts().as_ref().unwrap().iter().map(|mount| mount.destination().to_str().unwrap()).collect()
}

fn bind(host: &str, container: &str) -> cri::Mount {
    cri::Mount { host_path: host.into(), container_path: container.into(), ..Default::default() }
}

fn variable(key: &str, value: &[u8]) -> cri::KeyValue {
    cri::KeyValue { key: key.into(), value: value.into() }
}
