//! A container's OCI specification: what of it names the host becomes what the guest can reach.

use std::{
    fs::File,
    io::Read,
    path::{Path, PathBuf},
};

use a3s_box_proto::{
    id_set::IdSet,
    ids::SandboxId,
    ports::{IMAGE_MOUNT_LAYER, IMAGE_MOUNT_TYPE, POD_MEMORY, POD_MOUNT_TYPE, POD_OBJECTS},
};
use serde_json::{Value, json};

use super::spec::PauseSpec;
use crate::{
    cgroup::Cpuset,
    error::{Error, Result, Step},
    sys::namespace::HostNamespace,
    volume::{
        Shown,
        bind::{Access, Bind},
        block::{Block, Number},
    },
};

/// A message to the agent must stay below ttrpc's 4 MiB.
pub const LONGEST_SPEC: usize = 3 << 20;

/// A specification, with the places in it that name host paths.
#[derive(Debug)]
pub struct ContainerSpec {
    value: Value,
    binds: Vec<(usize, Bind)>,
    images: Vec<(usize, Vec<PathBuf>)>,
    cpuset: Cpuset,
}

/// OCI's `linux.resources`.
pub type Resources = Value;

/// Takes what names the host's processors and memory nodes out of a container's limits: the guest has others.
///
/// # Errors
/// It is no list of them.
pub fn take_cpuset(resources: &mut Resources) -> Result<Cpuset> {
    let mut take = |key: &str| -> Result<Option<IdSet>> {
        let Some(Value::String(text)) =
            resources.get_mut("cpu").and_then(Value::as_object_mut).and_then(|cpu| cpu.remove(key))
        else {
            return Ok(None);
        };
        let ids: IdSet = text
            .parse()
            .map_err(|error| Error::invalid(format!("linux.resources.cpu.{key}"), format!("{error}")))?;
        Ok((!ids.is_empty()).then_some(ids))
    };
    Ok(Cpuset { cpus: take("cpus")?, mems: take("mems")? })
}

impl ContainerSpec {
    /// Reads a specification.
    ///
    /// # Errors
    /// It is no specification, or wants a mount that a VM cannot give.
    pub fn parse(json: &[u8], pod: &SandboxId) -> Result<Self> {
        let mut value = parse(json)?;
        let (mut binds, mut images) = (Vec::new(), Vec::new());
        let mounts = value.get_mut("mounts").and_then(Value::as_array_mut);
        for (index, mount) in mounts.into_iter().flatten().enumerate() {
            if mount["type"] == POD_MOUNT_TYPE {
                // Ours already: the agent knows what it means.
            } else if mount["type"] == IMAGE_MOUNT_TYPE {
                images.push((index, layers_of(mount)));
            } else if is_the_pods_memory(mount, pod) {
                mount["type"] = json!(POD_MOUNT_TYPE);
                mount["source"] = json!(POD_MEMORY);
            } else if let Some(bind) = bind_of(mount)? {
                binds.push((index, bind));
            }
        }
        let cpuset = match value.pointer_mut("/linux/resources") {
            Some(resources) => take_cpuset(resources)?,
            None => Cpuset::default(),
        };
        Ok(Self { value, binds, images, cpuset })
    }

    /// Adds the pod's files and shared memory where it mounts nothing: a sandbox's shim has to, containerd says.
    pub fn add_pod_objects(&mut self) {
        let readonly = self.value["root"]["readonly"] == true;
        let Some(mounts) = self.value.get_mut("mounts").and_then(Value::as_array_mut) else { return };
        for (destination, name) in POD_OBJECTS {
            let is_there = |mount: &&mut Value| {
                mount["destination"].as_str().is_some_and(|path| Path::new(path) == Path::new(destination))
            };
            let access = if readonly && name != POD_MEMORY { "ro" } else { "rw" };
            let object = json!({
                "destination": destination,
                "type": POD_MOUNT_TYPE,
                "source": name,
                "options": ["rbind", "rprivate", access],
            });
            match mounts.iter_mut().find(is_there) {
                None => mounts.push(object),
                // The memory of a container alone is OCI's default, which nobody asked for.
                Some(mount) if mount["type"] == "tmpfs" => *mount = object,
                Some(_) => {}
            }
        }
    }

    /// What it names of the host's processors and memory nodes.
    pub fn cpuset(&self) -> &Cpuset {
        &self.cpuset
    }

    /// How gladly the kernel kills it when memory is short.
    pub fn oom_score_adj(&self) -> i32 {
        let score = self.value["process"]["oomScoreAdj"].as_i64().unwrap_or_default();
        score.clamp(-1000, 1000) as i32
    }

    /// The host paths that it mounts.
    pub fn binds(&self) -> impl ExactSizeIterator<Item = &Bind> {
        self.binds.iter().map(|(_, bind)| bind)
    }

    /// The block devices of the host that it uses.
    pub fn blocks(&self) -> Vec<Block> {
        let devices = self.value.pointer("/linux/devices").and_then(Value::as_array);
        let numbers = devices.into_iter().flatten().filter(|device| device["type"] == "b").filter_map(number);
        numbers.map(|number| Block { number, read_only: !self.may_write(number) }).collect()
    }

    /// As cgroups have it: the last rule that says something of a device counts.
    fn may_write(&self, wanted: Number) -> bool {
        let rules = self.value.pointer("/linux/resources/devices").and_then(Value::as_array);
        let concerns = |rule: &&Value| {
            let is_any =
                |key: &str| rule[key].is_null() || rule[key].as_i64().is_some_and(|number| number < 0);
            let is = |key: &str, number: u32| is_any(key) || rule[key].as_u64() == Some(number.into());
            let of_kind = ["b", "a", ""].contains(&rule["type"].as_str().unwrap_or_default());
            let of_writing = rule["access"].as_str().is_none_or(|access| access.contains('w'));
            of_kind && of_writing && is("major", wanted.0) && is("minor", wanted.1)
        };
        let last = rules.into_iter().flatten().rfind(concerns);
        last.is_some_and(|rule| rule["allow"] == true)
    }

    /// The layer files of each image that it mounts as a volume, the lowest first.
    pub fn images(&self) -> impl ExactSizeIterator<Item = &[PathBuf]> {
        self.images.iter().map(|(_, layers)| layers.as_slice())
    }

    /// The specification for the guest, given what each of the host paths is there, and the names of each image's
    /// layers.
    ///
    /// # Errors
    /// It does not fit into a message.
    pub fn finish(mut self, volumes: &[Shown], images: &[Vec<String>]) -> Result<Vec<u8>> {
        for ((index, _), shown) in self.binds.iter().zip(volumes) {
            let mount = &mut self.value["mounts"][*index];
            mount["source"] = json!(shown.path);
            if shown.access == Access::ReadWrite
                && let Some(options) = mount["options"].as_array_mut()
            {
                options.retain(|option| option != "ro" && option != "rro");
            }
        }
        for ((index, _), layers) in self.images.iter().zip(images) {
            if let Some(options) = self.value["mounts"][*index]["options"].as_array_mut() {
                options.retain(|option| layer_of(option).is_none());
                options.extend(layers.iter().map(|name| json!(format!("{IMAGE_MOUNT_LAYER}{name}"))));
            }
        }
        let bytes = self.value.to_string().into_bytes();
        if bytes.len() > LONGEST_SPEC {
            return Err(Error::invalid(
                "the specification",
                format!("it has more than {LONGEST_SPEC} bytes"),
            ));
        }
        Ok(bytes)
    }
}

/// Reads `config.json` of a bundle.
///
/// # Errors
/// It is not there, or too long.
pub async fn read(host: &HostNamespace, bundle: &Path) -> Result<Vec<u8>> {
    let path = bundle.join("config.json");
    let file = path.clone();
    let read = host.run(move || {
        let mut json = Vec::new();
        File::open(file)?.take(LONGEST_SPEC as u64 + 1).read_to_end(&mut json)?;
        Ok(json)
    });
    let json = read.await.step(|| format!("reading {}", path.display()))?;
    if json.len() > LONGEST_SPEC {
        return Err(Error::invalid(path.to_string_lossy(), format!("it has more than {LONGEST_SPEC} bytes")));
    }
    Ok(json)
}

/// Whether a specification is that of containerd's pause container, and what it says of the pod.
///
/// # Errors
/// It is no specification.
pub fn pause(json: &[u8]) -> Result<Option<PauseSpec>> {
    let value = parse(json)?;
    let annotations =
        serde_json::from_value::<std::collections::HashMap<String, String>>(value["annotations"].clone())
            .unwrap_or_default();
    if annotations.get("io.kubernetes.cri.container-type").map(String::as_str) != Some("sandbox") {
        return Ok(None);
    }
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let namespaces = || value["linux"]["namespaces"].as_array().into_iter().flatten();
    let netns = namespaces().find(|namespace| namespace["type"] == "network");
    Ok(Some(PauseSpec {
        annotations,
        hostname: text(&value["hostname"]),
        namespaces: namespaces().map(|namespace| text(&namespace["type"])).collect(),
        netns: netns.map(|namespace| text(&namespace["path"])).unwrap_or_default(),
        cgroups_path: text(&value["linux"]["cgroupsPath"]),
        sysctls: serde_json::from_value(value["linux"]["sysctl"].clone()).unwrap_or_default(),
    }))
}

fn parse(json: &[u8]) -> Result<Value> {
    serde_json::from_slice(json).map_err(|error| Error::invalid("the specification", error.to_string()))
}

/// containerd makes a tmpfs on the host for the pod; memory that processes share must be the guest's own.
fn is_the_pods_memory(mount: &Value, pod: &SandboxId) -> bool {
    let source = Path::new(mount["source"].as_str().unwrap_or_default());
    mount["destination"] == "/dev/shm" && source.ends_with(Path::new(pod.as_str()).join("shm"))
}

fn layers_of(mount: &Value) -> Vec<PathBuf> {
    mount["options"].as_array().into_iter().flatten().filter_map(layer_of).map(PathBuf::from).collect()
}

fn layer_of(option: &Value) -> Option<&str> {
    option.as_str()?.strip_prefix(IMAGE_MOUNT_LAYER)
}

fn number(device: &Value) -> Option<Number> {
    let number = |key: &str| u32::try_from(device[key].as_u64()?).ok();
    Some((number("major")?, number("minor")?))
}

fn bind_of(mount: &Value) -> Result<Option<Bind>> {
    let options: Vec<&str> =
        mount["options"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let has = |names: &[&str]| options.iter().any(|option| names.contains(option));
    if mount["type"] != "bind" && !has(&["bind", "rbind"]) {
        return Ok(None);
    }
    let object = || format!("mount {}", mount["destination"]);
    if has(&["shared", "rshared"]) {
        return Err(Error::invalid(object(), "bidirectional propagation cannot leave a MicroVM"));
    }
    for mapping in ["uidMappings", "gidMappings"] {
        if mount[mapping].as_array().is_some_and(|mappings| !mappings.is_empty()) {
            return Err(Error::invalid(object(), format!("{mapping} are not supported in a MicroVM")));
        }
    }
    let access = match (has(&["ro"]), has(&["rro"])) {
        (_, true) => Access::RecursiveReadOnly,
        (true, false) => Access::ReadOnly,
        (false, false) => Access::ReadWrite,
    };
    let source = mount["source"].as_str().unwrap_or_default();
    if !source.starts_with('/') {
        return Err(Error::invalid(object(), format!("source {source:?} is not an absolute path")));
    }
    Ok(Some(Bind {
        source: source.into(),
        access,
        recursive: has(&["rbind"]),
        follows_host: has(&["slave", "rslave"]),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec() -> Vec<u8> {
        json!({
            "ociVersion": "1.1.0",
            "futureField": {"kept": true},
            "mounts": [
                {"destination": "/proc", "type": "proc", "source": "proc"},
                {"destination": "/data", "type": "bind", "source": "/srv/data", "options": ["rbind", "ro"]},
                {"destination": "/etc/hosts", "source": "/x/hosts", "options": ["bind", "rslave"]},
                {"destination": "/dev/shm", "type": "bind", "source": "/run/ctd/sandboxes/p1/shm"},
                {"destination": "/etc/hostname", "type": "pod", "source": "hostname", "options": ["rbind"]},
            ],
        })
        .to_string()
        .into_bytes()
    }

    #[test]
    fn host_paths_are_replaced_and_all_else_is_kept() {
        let spec = ContainerSpec::parse(&spec(), &"p1".parse().unwrap()).unwrap();
        let binds: Vec<_> = spec.binds().cloned().collect();
        assert_eq!(binds.len(), 2);
        assert!(binds[0].access == Access::ReadOnly && binds[0].recursive && !binds[0].follows_host);
        assert!(binds[1].access == Access::ReadWrite && !binds[1].recursive && binds[1].follows_host);
        let shown = |path: &str, access| Shown { path: path.into(), access };
        let volumes = [shown("/g/0", Access::ReadWrite), shown("/g/1", Access::ReadOnly)];
        let out: Value = serde_json::from_slice(&spec.finish(&volumes, &[]).unwrap()).unwrap();
        assert_eq!(out["mounts"][1]["source"], "/g/0");
        // What is forbidden on the host already.
        assert_eq!(out["mounts"][1]["options"], json!(["rbind"]));
        assert_eq!(out["mounts"][2]["source"], "/g/1");
        assert_eq!(out["mounts"][3], json!({"destination": "/dev/shm", "type": "pod", "source": "shm"}));
        assert_eq!(out["mounts"][4]["source"], "hostname");
        assert_eq!(out["futureField"]["kept"], true);
    }

    #[test]
    fn what_containerd_leaves_to_a_sandboxs_shim_is_added() {
        let json = json!({
            "root": {"path": "rootfs", "readonly": true},
            "mounts": [
                {"destination": "/dev/shm", "type": "tmpfs", "source": "shm", "options": ["size=65536k"]},
                {"destination": "/etc/hosts/", "type": "bind", "source": "/srv/hosts", "options": ["rbind"]},
            ],
        });
        let mut spec = ContainerSpec::parse(json.to_string().as_bytes(), &"p1".parse().unwrap()).unwrap();
        spec.add_pod_objects();
        let shown = [Shown { path: "/g/0".into(), access: Access::ReadWrite }];
        let out: Value = serde_json::from_slice(&spec.finish(&shown, &[]).unwrap()).unwrap();
        let object = |destination: &str, name: &str, access: &str| {
            json!({
                "destination": destination, "type": "pod", "source": name,
                "options": ["rbind", "rprivate", access],
            })
        };
        assert_eq!(out["mounts"][0], object("/dev/shm", "shm", "rw"));
        assert_eq!(out["mounts"][1]["source"], "/g/0");
        assert_eq!(out["mounts"][2], object("/etc/hostname", "hostname", "ro"));
        assert_eq!(out["mounts"][3], object("/etc/resolv.conf", "resolv.conf", "ro"));
        assert_eq!(out["mounts"].as_array().unwrap().len(), 4);
    }

    #[test]
    fn an_images_layers_get_the_names_that_the_guest_knows() {
        let options = ["rbind", "layer=/images/a", "layer=/images/b", "ro"];
        let mount = json!({"destination": "/i", "type": "image", "source": "sub", "options": options});
        let json = json!({"mounts": [mount]}).to_string();
        let spec = ContainerSpec::parse(json.as_bytes(), &"p1".parse().unwrap()).unwrap();
        assert_eq!(spec.binds().len(), 0);
        let images: Vec<_> = spec.images().map(<[_]>::to_vec).collect();
        assert_eq!(images, [[PathBuf::from("/images/a"), "/images/b".into()]]);
        let out = spec.finish(&[], &[vec!["0".into(), "3".into()]]).unwrap();
        let out: Value = serde_json::from_slice(&out).unwrap();
        assert_eq!(out["mounts"][0]["options"], json!(["rbind", "ro", "layer=0", "layer=3"]));
        assert_eq!(out["mounts"][0]["source"], "sub");
    }

    #[test]
    fn what_a_vm_cannot_give_is_refused_by_name() {
        for (mount, word) in [
            (json!({"destination": "/m", "type": "bind", "source": "/a", "options": ["rshared"]}), "/m"),
            (json!({"destination": "/m", "type": "bind", "source": "a"}), "absolute"),
            (
                json!({"destination": "/m", "type": "bind", "source": "/a", "gidMappings": [{"size": 1}]}),
                "gidMappings",
            ),
        ] {
            let json = json!({"mounts": [mount]}).to_string();
            let error = ContainerSpec::parse(json.as_bytes(), &"p1".parse().unwrap()).unwrap_err();
            assert!(error.to_string().contains(word), "{error}");
        }
    }

    #[test]
    fn what_names_the_hosts_processors_stays_on_the_host() {
        let json = json!({"linux": {"resources": {"cpu": {"shares": 2, "cpus": "1,0", "mems": ""}}}});
        let spec = ContainerSpec::parse(json.to_string().as_bytes(), &"p1".parse().unwrap()).unwrap();
        assert_eq!(*spec.cpuset(), Cpuset { cpus: Some("0-1".parse().unwrap()), mems: None });
        let out: Value = serde_json::from_slice(&spec.finish(&[], &[]).unwrap()).unwrap();
        assert_eq!(out, json!({"linux": {"resources": {"cpu": {"shares": 2}}}}));
        let error = take_cpuset(&mut json!({"cpu": {"cpus": "x"}})).unwrap_err().to_string();
        assert!(error.contains("cpus") && error.contains('x'), "{error}");
        assert_eq!(take_cpuset(&mut json!({})).unwrap(), Cpuset::default());
    }

    #[test]
    fn a_block_device_is_as_writable_as_the_cgroup_lets_it_be() {
        let spec = |rules: Value| {
            let devices = json!([
                {"path": "/dev/x", "type": "b", "major": 7, "minor": 1},
                {"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229},
            ]);
            let json = json!({"linux": {"devices": devices, "resources": {"devices": rules}}}).to_string();
            ContainerSpec::parse(json.as_bytes(), &"p1".parse().unwrap()).unwrap().blocks()
        };
        let block = |read_only| [Block { number: (7, 1), read_only }];
        let none = json!({"allow": false, "access": "rwm"});
        let own =
            |access: &str| json!({"allow": true, "type": "b", "major": 7, "minor": 1, "access": access});
        assert_eq!(spec(json!([none, own("rw")])), block(false));
        assert_eq!(spec(json!([none, own("r")])), block(true));
        assert_eq!(spec(json!([none])), block(true));
        assert_eq!(spec(json!([{"allow": true, "access": "rwm"}])), block(false));
    }

    #[test]
    fn the_pause_container_is_told_by_its_annotation() {
        assert!(pause(&spec()).unwrap().is_none());
        let json = json!({
            "annotations": {"io.kubernetes.cri.container-type": "sandbox"},
            "linux": {"namespaces": [{"type": "pid"}, {"type": "network", "path": "/run/netns/x"}]},
        });
        assert_eq!(pause(json.to_string().as_bytes()).unwrap().unwrap().netns, "/run/netns/x");
    }
}
