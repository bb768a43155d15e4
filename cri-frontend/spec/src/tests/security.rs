//! Namespaces, capabilities, privileges, seccomp.

use super::*;

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
