//! The host's OCI specification becomes the guest's: what names the pod or the host is resolved here.

use std::{collections::HashMap, path::PathBuf};

use a3s_box_proto::{
    ids::ContainerId,
    ports::{CONTAINER_PID_NAMESPACE, IMAGE_MOUNT_LAYER, IMAGE_MOUNT_TYPE, POD_MOUNT_TYPE},
};
use oci_spec::runtime::{
    Linux, LinuxDeviceType, LinuxNamespace, LinuxNamespaceBuilder, LinuxNamespaceType, Mount, Root,
    RootBuilder, Spec, User,
};

use super::{limits, process_spec};
use crate::{
    error::Error,
    paths,
    rootfs::{erofs::is_layer_name, image},
    volume,
};

/// Which processes a container sees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pids {
    /// Its own.
    Own,
    /// The whole guest's.
    Guest,
    /// Those of the pod's containers that share them.
    Pod,
    /// Those of another container.
    Of(ContainerId),
}

/// Reads a specification and refuses what the guest cannot do.
pub fn parse(json: &[u8]) -> Result<Spec, Error> {
    let spec: Spec = serde_json::from_slice(json).map_err(|error| Error::invalid("spec", error))?;
    let wrong = |why: &str| Err(Error::invalid("spec", why));
    if !spec.version().starts_with("1.") {
        return Err(Error::invalid("spec", format!("OCI version {:?} is not 1.x", spec.version())));
    }
    let Some(process) = spec.process() else { return wrong("it has no process") };
    process_spec::check(process)?;
    if spec.linux().is_none() {
        return wrong("it has no linux section");
    }
    // They are programs of the host; leaving them out silently would break what they were meant for.
    let hooks = spec.hooks().as_ref().is_some_and(|hooks| {
        let lists = [
            hooks.create_runtime(),
            hooks.create_container(),
            hooks.start_container(),
            hooks.poststart(),
            hooks.poststop(),
        ];
        lists.into_iter().flatten().any(|list| !list.is_empty())
    });
    if hooks {
        return wrong("hooks are programs of the host and cannot run in the guest");
    }
    Ok(spec)
}

/// Which processes the container shall see, by its namespaces.
pub fn pids(spec: &Spec) -> Result<Pids, Error> {
    let Some(entry) = namespaces(spec).find(|entry| entry.typ() == LinuxNamespaceType::Pid) else {
        return Ok(Pids::Guest);
    };
    let Some(path) = entry.path().as_ref().map(|path| path.to_string_lossy()) else {
        return Ok(Pids::Own);
    };
    match path.strip_prefix(CONTAINER_PID_NAMESPACE) {
        Some(id) => id.parse().map(Pids::Of).map_err(|error| Error::invalid("PID namespace", error)),
        None => Ok(Pids::Pod),
    }
}

fn namespaces(spec: &Spec) -> impl Iterator<Item = &LinuxNamespace> {
    spec.linux().as_ref().and_then(|linux| linux.namespaces().as_ref()).into_iter().flatten()
}

/// Makes it fit for the guest. `pid_namespace` is a path where the container shares somebody's processes.
pub fn adapt(mut spec: Spec, id: &ContainerId, pid_namespace: Option<PathBuf>) -> Result<Spec, Error> {
    let readonly = spec.root().as_ref().and_then(Root::readonly).unwrap_or(false);
    let root = RootBuilder::default()
        .path(paths::rootfs(id))
        .readonly(readonly)
        .build()
        .map_err(|error| Error::invalid("spec", error))?;
    spec.set_root(Some(root));
    // The names are the pod's.
    spec.set_hostname(None);
    spec.set_domainname(None);
    spec.set_hooks(None);
    if let Some(mounts) = spec.mounts_mut() {
        mounts.iter_mut().try_for_each(adapt_mount)?;
    }
    if let Some(linux) = spec.linux_mut() {
        adapt_linux(linux, id, pid_namespace)?;
    }
    Ok(spec)
}

fn adapt_linux(linux: &mut Linux, id: &ContainerId, pid_namespace: Option<PathBuf>) -> Result<(), Error> {
    linux.set_cgroups_path(Some(PathBuf::from(format!("/pod/{id}"))));
    if let Some(resources) = linux.resources_mut() {
        limits::adapt(resources)?;
    }
    let entries = linux.namespaces().clone().unwrap_or_default();
    linux.set_namespaces(Some(adapt_namespaces(&entries, pid_namespace)?));
    // Set for the pod by the agent, which owns these namespaces.
    linux.set_sysctl(None);
    linux.set_intel_rdt(None);
    linux.set_net_devices(None);
    let propagation = linux.rootfs_propagation().as_deref().map(recursive_propagation);
    linux.set_rootfs_propagation(propagation);
    Ok(())
}

/// OCI knows `slave`, containerd says `rslave`; both mean the whole tree, and libcontainer knows the first only.
fn recursive_propagation(name: &str) -> String {
    match name {
        "rshared" | "rslave" | "rprivate" | "runbindable" => name[1..].to_owned(),
        other => other.to_owned(),
    }
}

/// Network, IPC and UTS are the pod's: those of the agent, from which every process descends.
fn adapt_namespaces(
    entries: &[LinuxNamespace],
    pid_namespace: Option<PathBuf>,
) -> Result<Vec<LinuxNamespace>, Error> {
    let own = |kind| entries.iter().any(|entry| entry.typ() == kind);
    let mut kinds = vec![(LinuxNamespaceType::Mount, None), (LinuxNamespaceType::Cgroup, None)];
    if own(LinuxNamespaceType::Pid) {
        kinds.push((LinuxNamespaceType::Pid, pid_namespace));
    }
    for kind in [LinuxNamespaceType::User, LinuxNamespaceType::Time] {
        if own(kind) {
            kinds.push((kind, None));
        }
    }
    let build = |(kind, path): (LinuxNamespaceType, Option<PathBuf>)| {
        let mut builder = LinuxNamespaceBuilder::default().typ(kind);
        if let Some(path) = path {
            builder = builder.path(path);
        }
        builder.build().map_err(|error| Error::invalid("namespaces", error))
    };
    kinds.into_iter().map(build).collect()
}

/// Whether a mount shows something that exists already.
pub fn is_bind(mount: &Mount) -> bool {
    let binds = |option: &String| option == "bind" || option == "rbind";
    mount.typ().as_deref() == Some("bind") || mount.options().iter().flatten().any(binds)
}

fn adapt_mount(mount: &mut Mount) -> Result<(), Error> {
    let wrong = |why: String| Error::invalid("mount", why);
    let destination = mount.destination().display().to_string();
    if !mount.destination().is_absolute() || destination.contains('\0') {
        return Err(wrong(format!("destination {destination:?} is not an absolute path")));
    }
    if mount.typ().as_deref() == Some(POD_MOUNT_TYPE) {
        let name = mount.source().as_ref().map(|source| source.to_string_lossy().into_owned());
        let source = name.as_deref().and_then(volume::object).ok_or_else(|| {
            wrong(format!("{destination}: the pod has no object {:?}", name.unwrap_or_default()))
        })?;
        show(mount, source);
        return Ok(());
    }
    if mount.typ().as_deref() == Some(IMAGE_MOUNT_TYPE) {
        // Its place is known once it is mounted.
        return image_volume(mount).map(drop);
    }
    let source_is_sound = |source: &PathBuf| {
        source.is_absolute() && !source.components().any(|part| part == std::path::Component::ParentDir)
    };
    if is_bind(mount) && !mount.source().as_ref().is_some_and(source_is_sound) {
        let source = mount.source().clone().unwrap_or_default();
        return Err(wrong(format!("{destination}: source {:?} is not an absolute path", source.display())));
    }
    Ok(())
}

/// A block device's major and minor number.
pub type Number = (i64, i64);

/// Gives block devices the numbers that they have in the guest, by those that they have on the host: all at once, for
/// one's number here may be another's there.
pub fn renumber(spec: &mut Spec, guest: &HashMap<Number, Number>) {
    let Some(linux) = spec.linux_mut() else { return };
    for device in linux.devices_mut().iter_mut().flatten() {
        let host = (device.major(), device.minor());
        if let Some(&(major, minor)) = guest.get(&host).filter(|_| device.typ() == LinuxDeviceType::B) {
            device.set_major(major).set_minor(minor);
        }
    }
    let rules = linux.resources_mut().as_mut().and_then(|resources| resources.devices_mut().as_mut());
    for rule in rules.into_iter().flatten().filter(|rule| rule.typ() == Some(LinuxDeviceType::B)) {
        let host = rule.major().zip(rule.minor());
        if let Some(&(major, minor)) = host.and_then(|host| guest.get(&host)) {
            rule.set_major(Some(major)).set_minor(Some(minor));
        }
    }
}

/// The image that a mount shows, if it shows one.
pub fn image_volume(mount: &Mount) -> Result<Option<image::Volume>, Error> {
    if mount.typ().as_deref() != Some(IMAGE_MOUNT_TYPE) {
        return Ok(None);
    }
    let options = mount.options().iter().flatten();
    let layers: Vec<String> =
        options.filter_map(|option| option.strip_prefix(IMAGE_MOUNT_LAYER)).map(str::to_owned).collect();
    if layers.is_empty() || !layers.iter().all(|name| is_layer_name(name)) {
        let reason = format!("{}: an image has layers, each a file name", mount.destination().display());
        return Err(Error::invalid("mount", reason));
    }
    Ok(Some(image::Volume { layers, sub_path: mount.source().clone().unwrap_or_default() }))
}

/// Makes a mount of ours an ordinary one of what lies at a path.
pub fn show(mount: &mut Mount, source: PathBuf) {
    mount.set_source(Some(source)).set_typ(Some("bind".to_owned()));
    let mut options = mount.options().clone().unwrap_or_default();
    options.retain(|option| !option.starts_with(IMAGE_MOUNT_LAYER));
    if !options.iter().any(|option| option == "bind" || option == "rbind") {
        options.insert(0, "rbind".to_owned());
    }
    mount.set_options(Some(options));
}

/// The specification as libcontainer gets it. It makes the container with all privileges of its root; the init process
/// gives them up by itself when it becomes the program.
pub fn for_libcontainer(spec: &Spec) -> Spec {
    let mut spec = spec.clone();
    if let Some(process) = spec.process_mut() {
        process.set_user(User::default());
        process.set_capabilities(None);
        process.set_no_new_privileges(None);
        process.set_cwd("/".into());
        // The worker has set it already, and knows what to do where that is refused.
        process.set_oom_score_adj(None);
    }
    if let Some(linux) = spec.linux_mut() {
        linux.set_seccomp(None);
    }
    spec
}

#[cfg(test)]
mod tests {
    use oci_spec::runtime::LinuxNamespaceType as Kind;
    use serde_json::{Value, json};
    use std::path::Path;

    use super::*;

    fn id() -> ContainerId {
        "c1".parse().unwrap()
    }

    fn spec(change: impl FnOnce(&mut Value)) -> Result<Spec, String> {
        let mut json = json!({
            "ociVersion": "1.2.0",
            "process": {"user": {"uid": 0, "gid": 0}, "args": ["sh"], "cwd": "/"},
            "root": {"path": "/host/rootfs", "readonly": true},
            "hostname": "x",
            "linux": {
                "cgroupsPath": "/kubepods/a",
                "sysctl": {"net.core.somaxconn": "1"},
                "namespaces": [
                    {"type": "pid"}, {"type": "mount"}, {"type": "network", "path": "/proc/7/ns/net"},
                    {"type": "ipc", "path": "/proc/7/ns/ipc"}, {"type": "uts"}
                ]
            }
        });
        change(&mut json);
        parse(json.to_string().as_bytes()).map_err(|error| error.to_string())
    }

    #[test]
    fn the_pods_namespaces_are_the_agents_and_the_rest_is_the_containers() {
        let adapted = adapt(spec(|_| {}).unwrap(), &id(), None).unwrap();
        let linux = adapted.linux().as_ref().unwrap();
        let kinds: Vec<Kind> = linux.namespaces().as_ref().unwrap().iter().map(LinuxNamespace::typ).collect();
        assert_eq!(kinds, [Kind::Mount, Kind::Cgroup, Kind::Pid]);
        assert_eq!(linux.cgroups_path().as_deref(), Some(Path::new("/pod/c1")));
        assert_eq!(*linux.sysctl(), None);
        assert_eq!(*adapted.hostname(), None);
        let root = adapted.root().as_ref().unwrap();
        assert_eq!(root.path(), Path::new("/run/a3s/containers/c1/rootfs"));
        assert_eq!(root.readonly(), Some(true));
    }

    #[test]
    fn processes_are_seen_as_the_namespaces_say() {
        let with =
            |entries: Value| pids(&spec(|json| json["linux"]["namespaces"] = entries).unwrap()).unwrap();
        assert_eq!(with(json!([{"type": "pid"}])), Pids::Own);
        assert_eq!(with(json!([])), Pids::Guest);
        assert_eq!(with(json!([{"type": "pid", "path": "/proc/12/ns/pid"}])), Pids::Pod);
        assert_eq!(with(json!([{"type": "pid", "path": "pod:pid"}])), Pids::Pod);
        assert_eq!(with(json!([{"type": "pid", "path": "container:web"}])), Pids::Of("web".parse().unwrap()));
    }

    #[test]
    fn the_pods_objects_are_mounted_from_where_they_lie() {
        let with = |mount: Value| {
            adapt(spec(|json| json["mounts"] = json!([mount])).unwrap(), &id(), None)
                .map(|spec| spec.mounts().as_ref().unwrap()[0].clone())
                .map_err(|error| error.to_string())
        };
        let mount =
            with(json!({"destination": "/etc/hosts", "type": "pod", "source": "hosts", "options": ["ro"]}));
        let mount = mount.unwrap();
        assert_eq!(mount.source().as_deref(), Some(Path::new("/run/a3s/pod/hosts")));
        assert_eq!(mount.typ().as_deref(), Some("bind"));
        assert_eq!(mount.options().as_ref().unwrap(), &["rbind", "ro"]);
        for bad in [
            json!({"destination": "/x", "type": "pod", "source": "../secret"}),
            json!({"destination": "x", "type": "tmpfs"}),
            json!({"destination": "/x", "type": "bind", "source": "relative"}),
            json!({"destination": "/x", "source": "/a/../b", "options": ["rbind"]}),
        ] {
            assert!(with(bad.clone()).is_err(), "{bad}");
        }
    }

    #[test]
    fn block_devices_that_exchange_their_numbers_stay_apart() {
        let (a, b) = ((8, 32), (8, 16));
        let device = |path: &str, (major, minor): Number| json!({"path": path, "type": "b", "major": major, "minor": minor});
        let rule = |(major, minor): Number| json!({"allow": true, "type": "b", "major": major, "minor": minor, "access": "r"});
        let mut spec = spec(|json| {
            json["linux"]["devices"] = json!([device("/dev/a", a), device("/dev/b", b)]);
            json["linux"]["resources"] = json!({"devices": [{"allow": false}, rule(a), rule(b)]});
        })
        .unwrap();
        renumber(&mut spec, &HashMap::from([(a, b), (b, (8, 0))]));
        let linux = spec.linux().as_ref().unwrap();
        let devices = linux.devices().as_ref().unwrap();
        let numbers: Vec<Number> = devices.iter().map(|device| (device.major(), device.minor())).collect();
        assert_eq!(numbers, [b, (8, 0)]);
        let rules = linux.resources().as_ref().unwrap().devices().as_ref().unwrap();
        let numbers: Vec<_> = rules.iter().map(|rule| rule.major().zip(rule.minor())).collect();
        assert_eq!(numbers, [None, Some(b), Some((8, 0))]);
    }

    #[test]
    fn an_image_is_named_by_its_layers_and_shown_from_where_it_is_mounted() {
        let with = |options: Value| {
            let mount = json!({"destination": "/i", "type": "image", "source": "a/b", "options": options});
            adapt(spec(|json| json["mounts"] = json!([mount])).unwrap(), &id(), None)
                .map(|spec| spec.mounts().as_ref().unwrap()[0].clone())
        };
        let mut mount = with(json!(["rbind", "ro", "layer=0", "layer=3"])).unwrap();
        let volume = image_volume(&mount).unwrap().unwrap();
        assert_eq!((volume.layers, volume.sub_path), (vec!["0".into(), "3".into()], "a/b".into()));
        show(&mut mount, "/run/a3s/images/0/a/b".into());
        assert_eq!(mount.options().as_ref().unwrap(), &["rbind", "ro"]);
        assert_eq!(mount.typ().as_deref(), Some("bind"));
        assert!(image_volume(&mount).unwrap().is_none());
        assert!(with(json!(["ro"])).is_err() && with(json!(["layer=../x"])).is_err());
    }

    #[test]
    fn what_the_guest_cannot_do_is_refused() {
        assert!(spec(|json| json["ociVersion"] = json!("2.0.0")).is_err());
        assert!(spec(|json| json["process"] = Value::Null).is_err());
        assert!(spec(|json| json["process"]["args"] = json!([])).is_err());
        assert!(spec(|json| json["process"]["env"] = json!(["A=\u{0}"])).is_err());
        let hooks = json!({"poststop": [{"path": "/bin/true"}]});
        assert!(spec(|json| json["hooks"] = hooks).unwrap_err().contains("hooks"));
        assert!(parse(b"{").is_err());
    }

    #[test]
    fn privileges_are_given_up_by_the_init_process_itself() {
        let spec = spec(|json| {
            json["process"]["user"] = json!({"uid": 7, "gid": 8, "additionalGids": [9]});
            json["process"]["noNewPrivileges"] = json!(true);
            json["process"]["capabilities"] = json!({"bounding": ["CAP_CHOWN"]});
            json["linux"]["seccomp"] = json!({"defaultAction": "SCMP_ACT_ALLOW"});
            json["linux"]["maskedPaths"] = json!(["/proc/kcore"]);
        });
        let given = for_libcontainer(&adapt(spec.unwrap(), &id(), None).unwrap());
        let process = given.process().as_ref().unwrap();
        assert_eq!((process.user().uid(), process.user().gid()), (0, 0));
        assert_eq!((process.capabilities(), process.no_new_privileges()), (&None, None));
        let linux = given.linux().as_ref().unwrap();
        assert_eq!(*linux.seccomp(), None);
        assert!(linux.masked_paths().is_some());
    }
}
