//! Requests and what becomes of them.

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

#[test]
fn a_command_replaces_entrypoint_and_arguments_and_arguments_replace_only_arguments() {
    let list = |words: &[&str]| words.iter().map(ToString::to_string).collect::<Vec<_>>();
    for (command, args, expected) in [
        (&[][..], &[][..], &["entry", "cmd"][..]),
        (&["own"], &[], &["own"]),
        (&[], &["arg"], &["entry", "arg"]),
        (&["own"], &["arg"], &["own", "arg"]),
    ] {
        let spec = with(|request| {
            request.image = image(&json!({"Entrypoint": ["entry"], "Cmd": ["cmd"]}));
            request.container.command = list(command);
            request.container.args = list(args);
        });
        assert_eq!(process(&spec).args().as_ref().unwrap(), expected);
    }
    let spec = with(|request| {
        request.image = image(&json!({"Entrypoint": [""], "Cmd": ["cmd"]}));
        request.container.command.clear();
    });
    assert_eq!(process(&spec).args().as_ref().unwrap(), &["cmd"]);
    refused(&["no command specified"], |request| request.container.command.clear());
}

#[test]
fn the_containers_variables_override_the_images_which_override_ours() {
    let spec = with(|request| {
        request.image = image(&json!({"Env": ["PATH=/image", "A=image", "B=image", "HOSTNAME"]}));
        request.container.envs = vec![variable("A", b"own=1"), variable("C", b"")];
        request.container.tty = true;
    });
    let expected = ["PATH=/image", "TERM=xterm", "A=own=1", "B=image", "C="];
    assert_eq!(process(&spec).env().as_ref().unwrap(), &expected);
    let plain = with(|_| {});
    let env = process(&plain).env().as_ref().unwrap();
    assert!(env[0].starts_with("PATH=/usr/local/sbin:") && env[1..] == ["HOSTNAME=pod-host"], "{env:?}");
}

#[test]
fn variables_that_no_kernel_takes_are_refused_without_showing_their_value() {
    for (key, value) in [("", &b"secret"[..]), ("A=B", b"secret"), ("A", b"secret\0"), ("A", b"secret\xff")] {
        let mut request = Request::new();
        request.container.envs = vec![variable(key, value)];
        let error = request.spec().unwrap_err().to_string();
        assert!(error.contains("envs") && !error.contains("secret"), "{error}");
    }
    refused(&["envs", "bytes"], |request| {
        request.container.envs = vec![variable("A", &vec![b'x'; 200_000])];
    });
    refused(&["2097152"], |request| request.container.args = vec!["x".repeat(100_000); 30]);
    refused(&["command", "NUL"], |request| request.container.args = vec!["a\0b".into()]);
}

#[test]
fn the_working_directory_is_the_containers_the_images_or_the_root() {
    let cwd = |own: &str, image_dir: &str| {
        let spec = with(|request| {
            request.container.working_dir = own.into();
            request.image = image(&json!({"WorkingDir": image_dir}));
        });
        process(&spec).cwd().to_str().unwrap().to_owned()
    };
    assert_eq!(
        (cwd("/own", "/image"), cwd("", "/image"), cwd("", "")),
        ("/own".into(), "/image".into(), "/".into())
    );
    refused(&["working_dir", "\"app\""], |request| request.container.working_dir = "app".into());
}

#[test]
fn the_user_is_the_containers_or_the_images() {
    let lookup = |change: &dyn Fn(&mut LinuxContainerSecurityContext)| {
        let spec = with(|request| {
            request.image = image(&json!({"User": "app:staff"}));
            change(request.security());
        });
        (spec.user.user, spec.user.group)
    };
    let id = |value| Some(Int64Value { value });
    let pair = |user: &str, group: &str| (user.to_owned(), group.to_owned());
    assert_eq!(lookup(&|_| {}), pair("app", "staff"));
    assert_eq!(lookup(&|context| context.run_as_user = id(0)), pair("0", ""));
    assert_eq!(
        lookup(&|context| (context.run_as_user, context.run_as_group) = (id(1000), id(50))),
        pair("1000", "50")
    );
    assert_eq!(lookup(&|context| context.run_as_username = "www".into()), pair("www", ""));

    let spec = with(|request| {
        request.security().supplemental_groups = vec![7, 9];
        request.security().supplemental_groups_policy = cri::SupplementalGroupsPolicy::Strict.into();
    });
    assert_eq!((spec.user.supplemental_groups, spec.user.strict), (vec![7, 9], true));
}

#[test]
fn users_and_groups_that_cannot_be_are_refused() {
    let id = |value| Some(Int64Value { value });
    refused(&["run_as_group", "run_as_user"], |request| request.security().run_as_group = id(7));
    refused(&["run_as_user", "-1"], |request| request.security().run_as_user = id(-1));
    refused(&["run_as_user", "4294967296"], |request| request.security().run_as_user = id(1 << 32));
    refused(&["supplemental_groups"], |request| request.security().supplemental_groups = vec![1 << 31]);
    for user in ["root\n0", "4294967296", "a:b:c", &"x".repeat(10_000)] {
        refused(&["User"], |request| request.image = image(&json!({ "User": user })));
    }
}

#[test]
fn mounts_come_in_the_order_in_which_none_hides_another() {
    let spec = with(|request| {
        request.container.mounts =
            vec![bind("/data/deep", "/a/b/c"), bind("/data/hosts", "/etc/hosts"), bind("/data/a", "/a/")];
    });
    assert_eq!(
        destinations(&spec),
        [
            "/proc",
            "/dev",
            "/dev/pts",
            "/dev/mqueue",
            "/sys",
            "/sys/fs/cgroup",
            "/a",
            "/etc/hosts",
            "/dev/shm",
            "/etc/hostname",
            "/etc/resolv.conf",
            "/a/b/c"
        ]
    );
    let hosts = mount(&spec, "/etc/hosts");
    assert_eq!(
        hosts.source().as_deref(),
        Some(Path::new("/data/hosts")),
        "the container's own replaces the pod's"
    );
    assert_eq!(hosts.options().as_ref().unwrap(), &["rbind", "rprivate", "rw"]);
    let resolv = mount(&spec, "/etc/resolv.conf");
    assert_eq!(resolv.typ().as_deref(), Some("pod"));
    assert_eq!(resolv.source().as_deref(), Some(Path::new("resolv.conf")));
    assert_eq!(spec.host_mounts, ["/data/deep", "/data/hosts", "/data/a"].map(PathBuf::from));
}

#[test]
fn a_mounted_dev_takes_the_place_of_all_that_would_lie_in_it() {
    let spec = with(|request| request.container.mounts = vec![bind("/dev", "/dev")]);
    let found = destinations(&spec);
    assert!(!found.contains(&"/dev/pts") && !found.contains(&"/dev/mqueue"), "{found:?}");
    assert!(
        found.iter().position(|path| *path == "/dev") < found.iter().position(|path| *path == "/dev/shm")
    );
}

#[test]
fn access_propagation_and_options_reach_the_mount() {
    let options = |change: &dyn Fn(&mut cri::Mount)| {
        let mut asked = bind("/data", "/mnt");
        change(&mut asked);
        let spec = with(|request| request.container.mounts = vec![asked]);
        (mount(&spec, "/mnt").options().clone().unwrap().join(","), linux(&spec).rootfs_propagation().clone())
    };
    let slave = cri::MountPropagation::PropagationHostToContainer.into();
    assert_eq!(options(&|mount| mount.readonly = true), ("rbind,rprivate,ro".into(), None));
    assert_eq!(
        options(&|mount| (mount.readonly, mount.recursive_read_only) = (true, true)).0,
        "rbind,rprivate,rro"
    );
    assert_eq!(
        options(&|mount| mount.propagation = slave),
        ("rbind,rslave,rw".into(), Some("rslave".into()))
    );
    assert_eq!(options(&|mount| mount.mount_options = vec!["noexec".into()]).0, "rbind,rprivate,rw,noexec");
}

#[test]
fn mounts_that_make_no_sense_or_cannot_be_are_refused_by_name() {
    let mut cases: Vec<(&str, &str, cri::Mount)> = vec![
        ("container_path", "mnt", bind("/data", "mnt")),
        ("container_path", "root filesystem", bind("/data", "/mnt/..")),
        ("/mnt", "host_path", bind("data", "/mnt")),
        ("/mnt", "host_path", bind("", "/mnt")),
        ("/mnt", "NUL", bind("/da\0ta", "/mnt")),
        ("/mnt", "/proc/1", bind("/proc/1", "/mnt")),
        ("/mnt", "/sys", bind("/data/../sys", "/mnt")),
        ("/mnt", "runtime's own", bind("/run/a3s-box/pods", "/mnt")),
    ];
    let mut with_change = |words: (&'static str, &'static str), change: fn(&mut cri::Mount)| {
        let mut mount = bind("/data", "/mnt");
        change(&mut mount);
        cases.push((words.0, words.1, mount));
    };
    with_change(("/mnt", "propagation"), |mount| {
        mount.propagation = cri::MountPropagation::PropagationBidirectional.into();
    });
    with_change(("/mnt", "propagation"), |mount| mount.propagation = 9);
    with_change(("/mnt", "recursive_read_only"), |mount| mount.recursive_read_only = true);
    with_change(("/mnt", "image_sub_path"), |mount| mount.image_sub_path = "a".into());
    with_change(("/mnt", "upperdir"), |mount| mount.mount_options = vec!["upperdir=/x".into()]);
    with_change(("/mnt", "uidMappings"), |mount| mount.uid_mappings = vec![cri::IdMapping::default()]);
    for (field, value, mount) in cases {
        refused(&[field, value], |request| request.container.mounts = vec![mount]);
    }
    // The root of the host is normal: node-exporter has it.
    with(|request| request.container.mounts = vec![bind("/", "/host")]);
}

#[test]
fn an_image_is_mounted_read_only_by_its_layers() {
    let volume = |change: &dyn Fn(&mut cri::Mount)| {
        let mut mount = bind("", "/image");
        mount.readonly = true;
        mount.image = Some(cri::ImageSpec { image: "example.com/data:1".into(), ..Default::default() });
        change(&mut mount);
        mount
    };
    let spec = with(|request| {
        request.container.mounts = vec![volume(&|mount| mount.image_sub_path = "models/small".into())];
    });
    let found = mount(&spec, "/image");
    assert_eq!(found.typ().as_deref(), Some("image"));
    assert_eq!(found.source().as_deref(), Some(Path::new("models/small")));
    let options = ["rbind", "rprivate", "ro", "layer=/layers/0.erofs", "layer=/layers/1.erofs"];
    assert_eq!(found.options().as_ref().unwrap(), &options);
    assert!(spec.host_mounts.is_empty());

    type Change = fn(&mut cri::Mount);
    let cases: [(&str, Change); 6] = [
        ("image", |mount| mount.image = Some(cri::ImageSpec::default())),
        ("no image \"other\"", |mount| mount.image.as_mut().unwrap().image = "other".into()),
        ("host_path", |mount| mount.host_path = "/data".into()),
        ("readonly", |mount| mount.readonly = false),
        ("image_sub_path", |mount| mount.image_sub_path = "a/../../b".into()),
        ("image_sub_path", |mount| mount.image_sub_path = "/a".into()),
    ];
    for (field, change) in cases {
        refused(&["/image", field], |request| request.container.mounts = vec![volume(&change)]);
    }
}

#[test]
fn a_container_has_its_own_mounts_cgroup_and_if_asked_processes() {
    let namespaces = |pid: NamespaceMode| {
        let spec = with(|request| {
            request.security().namespace_options =
                Some(NamespaceOption { pid: pid.into(), target_id: "web".into(), ..Default::default() });
        });
        let namespaces = linux(&spec).namespaces().clone().unwrap();
        namespaces.iter().map(|entry| (entry.typ(), entry.path().clone())).collect::<Vec<_>>()
    };
    let own = [(LinuxNamespaceType::Mount, None), (LinuxNamespaceType::Cgroup, None)];
    let with_pid = |path: Option<&str>| {
        own.iter().cloned().chain([(LinuxNamespaceType::Pid, path.map(Into::into))]).collect::<Vec<_>>()
    };
    assert_eq!(namespaces(NamespaceMode::Container), with_pid(None));
    assert_eq!(namespaces(NamespaceMode::Pod), with_pid(Some(POD_PID_NAMESPACE)));
    assert_eq!(namespaces(NamespaceMode::Node), own);
    assert_eq!(namespaces(NamespaceMode::Target), with_pid(Some("container:web")));
    for (word, options) in [
        ("target_id", NamespaceOption { pid: NamespaceMode::Target.into(), ..Default::default() }),
        (
            "userns",
            NamespaceOption { userns_options: Some(cri::UserNamespace::default()), ..Default::default() },
        ),
    ] {
        refused(&[word], |request| request.security().namespace_options = Some(options));
    }
}

#[test]
fn capabilities_are_the_usual_ones_plus_added_minus_dropped() {
    let bounding = |add: &[&str], drop: &[&str]| {
        let spec = with(|request| {
            request.security().capabilities = Some(Capabilities {
                add_capabilities: add.iter().map(ToString::to_string).collect(),
                drop_capabilities: drop.iter().map(ToString::to_string).collect(),
                ..Default::default()
            });
        });
        let sets = process(&spec).capabilities().clone().unwrap();
        assert_eq!(sets.ambient().as_ref().map(HashSet::len), Some(0));
        assert_eq!((sets.effective(), sets.permitted()), (sets.bounding(), sets.bounding()));
        sets.bounding().clone().unwrap()
    };
    assert_eq!(bounding(&[], &[]).len(), 14);
    let changed = bounding(&["NET_ADMIN", "cap_sys_time"], &["KILL"]);
    assert!(changed.contains(&Capability::NetAdmin) && changed.contains(&Capability::SysTime));
    assert!(!changed.contains(&Capability::Kill));
    assert_eq!(bounding(&["ALL"], &["CHOWN"]).len(), 40);
    assert_eq!(bounding(&["CHOWN"], &["ALL"]), [Capability::Chown].into());
    refused(&["add_capabilities", "FLY"], |request| {
        request.security().capabilities =
            Some(Capabilities { add_capabilities: vec!["FLY".into()], ..Default::default() });
    });
}

#[test]
fn ambient_capabilities_are_inheritable_too() {
    let spec = with(|request| {
        request.security().capabilities = Some(Capabilities {
            drop_capabilities: vec!["ALL".into()],
            add_ambient_capabilities: vec!["NET_BIND_SERVICE".into()],
            ..Default::default()
        });
    });
    let sets = process(&spec).capabilities().clone().unwrap();
    for set in [sets.bounding(), sets.permitted(), sets.inheritable(), sets.ambient()] {
        assert_eq!(set.as_ref().unwrap(), &[Capability::NetBindService].into());
    }
}

#[test]
fn a_privileged_container_is_free_within_its_guest() {
    let spec = with(|request| {
        request.make_privileged();
        request.security().seccomp =
            Some(SecurityProfile { profile_type: ProfileType::RuntimeDefault.into(), ..Default::default() });
        request.security().masked_paths = vec!["/proc/kcore".into()];
    });
    let linux = linux(&spec);
    assert_eq!(process(&spec).capabilities().as_ref().unwrap().bounding().as_ref().unwrap().len(), 41);
    assert!(linux.seccomp().is_none());
    assert_eq!((linux.masked_paths(), linux.readonly_paths()), (&Some(vec![]), &Some(vec![])));
    for path in ["/sys", "/sys/fs/cgroup"] {
        assert!(mount(&spec, path).options().as_ref().unwrap().contains(&"rw".into()), "{path}");
    }
    let rules = linux.resources().as_ref().unwrap().devices().clone().unwrap();
    assert!(rules.len() == 1 && rules[0].allow() && rules[0].major().is_none());
    refused(&["privileged"], |request| request.security().privileged = true);
}

#[test]
fn an_ordinary_container_is_masked_and_no_profile_is_forced_on_it() {
    let spec = with(|_| {});
    let linux = linux(&spec);
    assert!(linux.masked_paths().as_ref().unwrap().contains(&"/proc/kcore".into()));
    assert!(linux.readonly_paths().as_ref().unwrap().contains(&"/proc/sys".into()));
    assert!(linux.seccomp().is_none());
    assert!(mount(&spec, "/sys").options().as_ref().unwrap().contains(&"ro".into()));
    assert_eq!(process(&spec).no_new_privileges(), Some(false));
    let rules = linux.resources().as_ref().unwrap().devices().clone().unwrap();
    assert!(rules.len() == 1 && !rules[0].allow());

    let own = with(|request| {
        request.security().masked_paths = vec!["/proc/version".into()];
        request.security().no_new_privs = true;
        request.security().readonly_rootfs = true;
    });
    assert_eq!(self::linux(&own).masked_paths().as_ref().unwrap(), &["/proc/version"]);
    assert_eq!(process(&own).no_new_privileges(), Some(true));
    assert_eq!(own.spec.root().as_ref().unwrap().readonly(), Some(true));
    assert!(mount(&own, "/etc/hosts").options().as_ref().unwrap().contains(&"ro".into()));
    assert!(mount(&own, "/dev/shm").options().as_ref().unwrap().contains(&"rw".into()));
}

fn seccomp_rules(add: &str) -> HashMap<String, LinuxSeccompAction> {
    let spec = with(|request| {
        request.security().seccomp =
            Some(SecurityProfile { profile_type: ProfileType::RuntimeDefault.into(), ..Default::default() });
        request.security().capabilities =
            Some(Capabilities { add_capabilities: vec![add.into()], ..Default::default() });
    });
    let profile = linux(&spec).seccomp().clone().unwrap();
    assert_eq!(profile.default_action(), LinuxSeccompAction::ScmpActErrno);
    let mut actions = HashMap::new();
    for rule in profile.syscalls().as_ref().unwrap() {
        let conditional = if rule.args().is_some() { "?" } else { "" };
        for name in rule.names() {
            actions.insert(format!("{name}{conditional}"), rule.action());
        }
    }
    actions
}

#[test]
fn the_default_profile_follows_the_capabilities() {
    let ordinary = seccomp_rules("CHOWN");
    for call in ["read", "execve", "clone?", "socket?", "chroot", "ptrace"] {
        assert_eq!(ordinary.get(call), Some(&LinuxSeccompAction::ScmpActAllow), "{call}");
    }
    for call in ["mount", "bpf", "io_uring_setup", "socket", "clone", "keyctl", "userfaultfd", "kexec_load"] {
        assert_eq!(ordinary.get(call), None, "{call}");
    }
    assert_eq!(ordinary["clone3"], LinuxSeccompAction::ScmpActErrno);
    let admin = seccomp_rules("SYS_ADMIN");
    assert!(!admin.contains_key("clone?"));
    assert_eq!(
        (admin["clone3"], admin["mount"]),
        (LinuxSeccompAction::ScmpActAllow, LinuxSeccompAction::ScmpActAllow)
    );
}

#[test]
fn no_system_call_of_the_default_profile_is_listed_twice() {
    let mut seen = HashSet::new();
    let twice: Vec<&str> =
        seccomp_default::ALLOWED.split_whitespace().filter(|name| !seen.insert(*name)).collect();
    assert!(twice.is_empty(), "{twice:?}");
}

#[test]
fn profiles_of_the_node_are_files_for_seccomp_and_refused_for_apparmor() {
    let localhost = || {
        Some(SecurityProfile { profile_type: ProfileType::Localhost.into(), localhost_ref: "/p.json".into() })
    };
    let mut request = Request::new();
    assert_eq!(seccomp_file(&request.container), Ok(None));
    request.security().seccomp = localhost();
    assert_eq!(seccomp_file(&request.container), Ok(Some("/p.json".into())));
    request.security().seccomp = None;
    #[allow(deprecated)]
    {
        request.security().seccomp_profile_path = "localhost//p.json".into();
        assert_eq!(seccomp_file(&request.container), Ok(Some("/p.json".into())));
        request.security().seccomp_profile_path = "localhost/p.json".into();
        assert!(seccomp_file(&request.container).is_err());
    }
    request.make_privileged();
    assert_eq!(seccomp_file(&request.container), Ok(None));
    refused(&["AppArmor", "/p.json"], |request| request.security().apparmor = localhost());
    #[allow(deprecated)]
    refused(&["AppArmor", "mine"], |request| request.security().apparmor_profile = "localhost/mine".into());
    #[allow(deprecated)]
    refused(&["seccomp_profile_path", "nonsense"], |request| {
        request.security().seccomp_profile_path = "nonsense".into();
    });
    with(|request| {
        request.security().apparmor =
            Some(SecurityProfile { profile_type: ProfileType::RuntimeDefault.into(), ..Default::default() });
        request.security().selinux_options = Some(cri::SeLinuxOption::default());
    });
}

#[test]
fn limits_reach_the_cgroup() {
    let spec = with(|request| {
        *request.resources() = LinuxContainerResources {
            cpu_shares: 512,
            cpu_quota: 50_000,
            cpu_period: 100_000,
            memory_limit_in_bytes: 1 << 26,
            oom_score_adj: 999,
            cpuset_cpus: "0-63".into(),
            cpuset_mems: "7".into(),
            hugepage_limits: vec![cri::HugepageLimit { page_size: "2MB".into(), limit: 0 }],
            unified: [("memory.high".into(), "1000".into()), ("pids.max".into(), "77".into())].into(),
            ..Default::default()
        };
    });
    let resources = linux(&spec).resources().clone().unwrap();
    let cpu = resources.cpu().clone().unwrap();
    assert_eq!((cpu.shares(), cpu.quota(), cpu.period()), (Some(512), Some(50_000), Some(100_000)));
    assert_eq!((cpu.cpus().as_deref(), cpu.mems().as_deref()), (Some("0-63"), Some("7")));
    let hugepages = resources.hugepage_limits().clone().unwrap();
    assert_eq!((hugepages[0].page_size().as_str(), hugepages[0].limit()), ("2MB", 0));
    let memory = resources.memory().unwrap();
    assert_eq!((memory.limit(), memory.swap()), (Some(1 << 26), Some(1 << 26)), "no swap unless asked for");
    assert_eq!(resources.pids().unwrap().limit(), 77);
    assert_eq!(resources.unified().as_ref().unwrap(), &[("memory.high".into(), "1000".into())].into());
    assert_eq!(process(&spec).oom_score_adj(), Some(999));
}

#[test]
fn the_limit_of_processes_is_the_containers_the_pods_or_the_nodes() {
    let limit = |unified: Option<&str>, annotation: Option<&str>| {
        let spec = with(|request| {
            if let Some(value) = unified {
                request.resources().unified.insert("pids.max".into(), value.into());
            }
            if let Some(value) = annotation {
                request.sandbox.annotations.insert("a3s.box/pids-limit".into(), value.into());
            }
        });
        linux(&spec).resources().as_ref().unwrap().pids().unwrap().limit()
    };
    assert_eq!((limit(Some("5"), Some("6")), limit(None, Some("6")), limit(None, None)), (5, 6, 100));
    for value in ["1001", "max", "0", "-1", "many"] {
        refused(&["pids.max", value], |request| {
            request.resources().unified.insert("pids.max".into(), value.into());
        });
        refused(&["a3s.box/pids-limit", value], |request| {
            request.sandbox.annotations.insert("a3s.box/pids-limit".into(), value.into());
        });
    }
}

#[test]
fn resources_that_make_no_sense_are_refused_by_name() {
    refused(&["hugepage_limits", "2MB"], |request| {
        request.resources().hugepage_limits = vec![cri::HugepageLimit { page_size: "2MB".into(), limit: 1 }];
    });
    for wrong in ["0-", "many", "0-4000000000"] {
        refused(&["cpuset_cpus", wrong], |request| request.resources().cpuset_cpus = wrong.into());
    }
    refused(&["memory_swap_limit", "memory_limit"], |request| {
        request.resources().memory_swap_limit_in_bytes = 1;
    });
    refused(&["cpu_shares", "-5"], |request| request.resources().cpu_shares = -5);
    refused(&["cpu_quota", "-5"], |request| request.resources().cpu_quota = -5);
    refused(&["memory_swap_limit"], |request| {
        (request.resources().memory_limit_in_bytes, request.resources().memory_swap_limit_in_bytes) = (2, 1);
    });
    refused(&["oom_score_adj", "2000"], |request| request.resources().oom_score_adj = 2000);
    for key in ["cpuset.cpus", "cgroup.freeze", "io.max", "memory/../../x", "memory.\0"] {
        refused(&["unified"], |request| {
            request.resources().unified.insert(key.into(), "1".into());
        });
    }
    refused(&["a3s.box/vcpus"], |request| {
        request.container.annotations.insert("a3s.box/vcpus".into(), "2".into());
    });
}

#[test]
fn huge_pages_come_from_the_pods_own_pool() {
    let pages = |size: &str, limit| vec![cri::HugepageLimit { page_size: size.into(), limit }];
    let pool = |request: &mut Request, size: &str, limit| {
        let linux = request.sandbox.linux.get_or_insert_default();
        linux.resources.get_or_insert_default().hugepage_limits = pages(size, limit);
    };
    let spec = with(|request| {
        pool(request, "2MB", 4 << 20);
        request.resources().hugepage_limits = [pages("2MB", 2 << 20), pages("1GB", 0)].concat();
    });
    let limits = linux(&spec).resources().as_ref().unwrap().hugepage_limits().clone().unwrap();
    assert_eq!(limits.len(), 1, "of sizes that the guest has");
    assert_eq!(limits[0].limit(), 2 << 20);
    refused(&["hugepage_limits", "2MB", "pool of 4194304"], |request| {
        pool(request, "2MB", 4 << 20);
        request.resources().hugepage_limits = pages("2MB", 6 << 20);
    });
    refused(&["hugepage_limits", "1GB", "2MB"], |request| {
        request.resources().hugepage_limits = pages("1GB", 1 << 30);
    });
    for (size, limit, word) in [("1GB", 1 << 30, "2MB"), ("2MB", 3 << 20, "whole number")] {
        let mut request = Request::new();
        pool(&mut request, size, limit);
        let error = crate::check_sandbox(&request.sandbox).unwrap_err().to_string();
        assert!(error.contains(size) && error.contains(word), "{error}");
    }
}

#[test]
fn devices_are_the_guests_own_and_every_other_one_is_refused_by_name() {
    let device = |host: &str, container: &str| cri::Device {
        host_path: host.into(),
        container_path: container.into(),
        permissions: "rw".into(),
    };
    let spec = with(|request| {
        request.container.devices = vec![device("/dev/fuse", "/dev/fuse"), device("/dev/null", "/dev/null")];
    });
    let nodes = linux(&spec).devices().clone().unwrap();
    assert_eq!(nodes.len(), 1);
    assert_eq!(
        (nodes[0].path().as_path(), nodes[0].major(), nodes[0].minor()),
        (Path::new("/dev/fuse"), 10, 229)
    );
    let rules = linux(&spec).resources().as_ref().unwrap().devices().clone().unwrap();
    assert!(rules[1].allow() && rules[1].access().as_deref() == Some("rw"));

    let spec = with(|request| request.container.devices = vec![device("/dev/loop7", "/dev/xvda")]);
    let disk = linux(&spec).devices().clone().unwrap().remove(0);
    assert_eq!((disk.path().to_str(), disk.major(), disk.minor()), (Some("/dev/xvda"), 7, 7));
    assert_eq!(disk.typ(), oci_spec::runtime::LinuxDeviceType::B);

    refused(&["/dev/sda"], |request| request.container.devices = vec![device("/dev/sda", "/dev/sda")]);
    refused(&["vendor.com/gpu=0"], |request| {
        request.container.cdi_devices = vec![cri::CdiDevice { name: "vendor.com/gpu=0".into() }];
    });
}

#[test]
fn the_stop_signal_is_the_requests_the_images_or_term() {
    let signal = |asked: i32, of_image: Value| {
        with(|request| {
            request.container.stop_signal = asked;
            request.image = image(&json!({ "StopSignal": of_image }));
        })
        .stop_signal
    };
    assert_eq!(signal(cri::Signal::Sigusr1.into(), json!("SIGQUIT")), 10);
    assert_eq!((signal(0, json!("SIGQUIT")), signal(0, Value::Null)), (3, 15));
    refused(&["stop_signal"], |request| request.container.stop_signal = 99);
}

#[test]
fn tools_find_the_pod_in_the_annotations() {
    let spec = with(|_| {});
    let annotations = spec.spec.annotations().clone().unwrap();
    for (key, value) in [
        ("container-type", "container"),
        ("sandbox-id", "5a"),
        ("sandbox-name", "pod"),
        ("sandbox-namespace", "default"),
        ("sandbox-uid", "u-1"),
        ("container-name", "web"),
        ("image-name", "example.com/web:1"),
    ] {
        assert_eq!(annotations[&format!("io.kubernetes.cri.{key}")], value);
    }
}

#[test]
fn an_exec_is_the_containers_process_with_another_command() {
    let spec = with(|request| {
        request.container.envs = vec![variable("A", b"1")];
        request.security().no_new_privs = true;
        request.container.tty = false;
    });
    let command = ["ls".to_owned(), "-l".to_owned()];
    let exec = exec_process(process(&spec), &command, true).unwrap();
    assert_eq!((&exec["args"], &exec["terminal"]), (&json!(["ls", "-l"]), &json!(true)));
    let env = process(&spec).env().clone().unwrap();
    assert_eq!(exec["env"], json!([&env[..], &["TERM=xterm".to_owned()]].concat()));
    assert_eq!(exec["noNewPrivileges"], true);
    assert_eq!(exec["capabilities"]["bounding"].as_array().map(Vec::len), Some(14));
    assert_eq!(exec.get("user"), None, "only the guest knows it; 0 would be root");
    assert_eq!(exec_process(process(&spec), &command, false).unwrap()["env"], json!(env));
    assert!(exec_process(process(&spec), &[], false).is_err());
}

#[test]
fn a_request_that_says_next_to_nothing_is_enough() {
    let mut request = Request::new();
    request.container = cri::ContainerConfig { command: vec!["/bin/true".into()], ..Default::default() };
    request.sandbox = cri::PodSandboxConfig::default();
    let spec = request.spec().unwrap();
    assert_eq!(spec.user, UserLookup::default());
    let json = serde_json::to_value(&spec.spec).unwrap();
    assert_eq!(json["ociVersion"], "1.2.0");
    assert_eq!(json["process"].get("rlimits"), None);
    assert_eq!(json.get("hostname"), None);
}
