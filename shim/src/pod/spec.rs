//! What the pod is to be: read once from a CRI configuration, or from the pause container's specification.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    path::{Path, PathBuf},
};

use a3s_box_proto::{
    config::Config,
    cri::{LinuxContainerResources, NamespaceMode, PodSandboxConfig},
    sysctl,
};

use super::{
    annotations::{Annotations, NetworkMode},
    dns::Dns,
    size::{Declared, HUGEPAGE_MB},
};
use crate::error::{Error, Result};

/// Asks plugins of other projects for more interfaces: the Network Plumbing Working Group's standard, Multus' for one.
const NETWORKS: &str = "k8s.v1.cni.cncf.io/networks";

/// A pod, as asked for; checked.
#[derive(Debug, Clone, Default)]
pub struct PodSpec {
    /// Its own name; may be empty.
    pub hostname: String,
    /// Its network namespace; none where it has loopback only.
    pub netns: Option<PathBuf>,
    /// Interfaces that it asks for besides its first.
    pub more_interfaces: usize,
    /// As CRI names it.
    pub cgroup_parent: String,
    /// Ours, checked.
    pub annotations: Annotations,
    /// Limits of its containers together.
    pub limits: Declared,
    /// What the runtime class adds.
    pub overhead: Declared,
    /// Huge pages of 2 MiB for its containers.
    pub hugepages: u64,
    /// Names.
    pub dns: Dns,
    /// Kernel settings of the pod's namespaces.
    pub sysctls: BTreeMap<String, String>,
}

impl PodSpec {
    /// Reads CRI's configuration.
    ///
    /// # Errors
    /// It asks for what a VM cannot give, or an annotation is wrong.
    pub fn from_cri(message: PodSandboxConfig, netns: &str, config: &Config) -> Result<Self> {
        let linux = message.linux.unwrap_or_default();
        let namespaces = linux.security_context.unwrap_or_default().namespace_options.unwrap_or_default();
        for (what, mode) in
            [("network", namespaces.network), ("IPC", namespaces.ipc), ("processes", namespaces.pid)]
        {
            if mode == NamespaceMode::Node as i32 {
                return Err(of_the_host(what));
            }
        }
        let own_users =
            namespaces.userns_options.is_some_and(|users| users.mode == NamespaceMode::Pod as i32);
        refuse_own_users(own_users)?;
        let annotations = Annotations::parse(&message.annotations, config)?;
        let dns = message.dns_config.unwrap_or_default();
        Ok(Self {
            hostname: message.hostname,
            netns: netns_of(netns, annotations.network)?,
            more_interfaces: more_interfaces(&message.annotations),
            cgroup_parent: linux.cgroup_parent,
            annotations,
            limits: declared(linux.resources.as_ref()),
            hugepages: hugepages(linux.resources.as_ref())?,
            overhead: declared(linux.overhead.as_ref()),
            dns: Dns { servers: dns.servers, searches: dns.searches, options: dns.options },
            sysctls: own_sysctls(linux.sysctls)?,
        })
    }

    /// Reads the specification of containerd's pause container, which stands for the pod in its default mode.
    ///
    /// # Errors
    /// An annotation is wrong, or there is no network namespace.
    pub fn from_pause(spec: &PauseSpec, config: &Config) -> Result<Self> {
        for (what, kind) in [("network", "network"), ("IPC", "ipc"), ("processes", "pid")] {
            if !spec.namespaces.contains(kind) {
                return Err(of_the_host(what));
            }
        }
        refuse_own_users(spec.namespaces.contains("user"))?;
        let annotations = Annotations::parse(&spec.annotations, config)?;
        let number = |name: &str| -> u64 {
            let name = format!("io.kubernetes.cri.sandbox-{name}");
            spec.annotations.get(&name).and_then(|value| value.parse().ok()).unwrap_or_default()
        };
        let cgroup = Path::new(&spec.cgroups_path);
        Ok(Self {
            hostname: spec.hostname.clone(),
            netns: netns_of(&spec.netns, annotations.network)?,
            more_interfaces: more_interfaces(&spec.annotations),
            // systemd's form is "slice:prefix:name".
            cgroup_parent: match spec.cgroups_path.split_once(':') {
                Some((slice, _)) => slice.to_owned(),
                None => cgroup.parent().unwrap_or(Path::new("")).to_string_lossy().into_owned(),
            },
            annotations,
            limits: Declared {
                cpu_quota: number("cpu-quota"),
                cpu_period: number("cpu-period"),
                memory: number("memory"),
            },
            sysctls: own_sysctls(spec.sysctls.clone())?,
            ..Self::default()
        })
    }
}

/// What of the pause container's specification matters.
#[derive(Debug, Clone, Default)]
pub struct PauseSpec {
    /// Its annotations, which carry the pod's.
    pub annotations: HashMap<String, String>,
    /// The pod's name.
    pub hostname: String,
    /// Kinds of namespaces that are not the host's, in OCI's words.
    pub namespaces: BTreeSet<String>,
    /// Path of the pod's network namespace.
    pub netns: String,
    /// Where the pause container would be.
    pub cgroups_path: String,
    /// Kernel settings.
    pub sysctls: BTreeMap<String, String>,
}

fn of_the_host(what: &str) -> Error {
    Error::invalid("the pod", format!("the host's {what} cannot be given to a MicroVM"))
}

/// Without files that are mapped as well, its users could not read their own.
fn refuse_own_users(asked: bool) -> Result<()> {
    let reason = "a user namespace (hostUsers: false) is not supported: its MicroVM keeps its users apart";
    if asked { Err(Error::invalid("the pod", reason)) } else { Ok(()) }
}

/// containerd leaves it to the runtime to refuse those that are no pod's.
fn own_sysctls(asked: impl IntoIterator<Item = (String, String)>) -> Result<BTreeMap<String, String>> {
    let own = |(name, value): (String, String)| {
        sysctl::check(&name)
            .map_err(|problem| Error::invalid(format!("sysctl {name:?}"), problem.to_string()))?;
        Ok((name, value))
    };
    asked.into_iter().map(own).collect()
}

fn netns_of(path: &str, mode: NetworkMode) -> Result<Option<PathBuf>> {
    match (mode, path) {
        (NetworkMode::None, _) => Ok(None),
        (NetworkMode::Bridge, "") => Err(Error::invalid(
            "the pod",
            "no network namespace is given; annotation a3s.box/network-mode = none asks for loopback only",
        )),
        (NetworkMode::Bridge, path) => Ok(Some(path.into())),
    }
}

/// A list of names that commas separate, or one in JSON. What it means is the plugin's business.
fn more_interfaces(annotations: &HashMap<String, String>) -> usize {
    let list = annotations.get(NETWORKS).map(|list| list.trim()).unwrap_or_default();
    match serde_json::from_str::<Vec<serde_json::Value>>(list) {
        Ok(elements) => elements.len(),
        Err(_) if list.is_empty() => 0,
        Err(_) => list.split(',').count(),
    }
}

fn declared(resources: Option<&LinuxContainerResources>) -> Declared {
    let positive = |value: i64| u64::try_from(value).unwrap_or_default();
    resources.map_or(Declared::default(), |resources| Declared {
        cpu_quota: positive(resources.cpu_quota),
        cpu_period: positive(resources.cpu_period),
        memory: positive(resources.memory_limit_in_bytes),
    })
}

/// Number of huge pages; the guest's are of one size.
fn hugepages(resources: Option<&LinuxContainerResources>) -> Result<u64> {
    let mut pages = 0;
    for wish in
        resources.iter().flat_map(|resources| &resources.hugepage_limits).filter(|wish| wish.limit > 0)
    {
        if wish.page_size != "2MB" {
            let reason = format!("huge pages of {:?}: the guest's are of 2MB", wish.page_size);
            return Err(Error::invalid("the pod", reason));
        }
        pages = wish.limit.div_ceil(HUGEPAGE_MB << 20);
    }
    Ok(pages)
}

#[cfg(test)]
mod tests {
    use a3s_box_proto::cri::{
        LinuxPodSandboxConfig, LinuxSandboxSecurityContext, NamespaceOption, UserNamespace,
    };

    use super::*;

    #[test]
    fn the_hosts_namespaces_are_refused() {
        let node = NamespaceMode::Node as i32;
        for (word, options) in [
            ("network", NamespaceOption { network: node, ..Default::default() }),
            ("IPC", NamespaceOption { ipc: node, ..Default::default() }),
            ("processes", NamespaceOption { pid: node, ..Default::default() }),
        ] {
            let error = PodSpec::from_cri(with_namespaces(options), "/run/netns/x", &Config::default());
            assert!(error.unwrap_err().to_string().contains(word), "{word}");
        }
        let namespaces = ["network", "pid"].map(str::to_owned).into();
        let spec = PauseSpec { netns: "/run/netns/x".into(), namespaces, ..PauseSpec::default() };
        let error = PodSpec::from_pause(&spec, &Config::default()).unwrap_err();
        assert!(error.to_string().contains("IPC"), "{error}");
    }

    #[test]
    fn a_user_namespace_is_refused_by_name() {
        let users = |mode: NamespaceMode| {
            let users = UserNamespace { mode: mode as i32, ..Default::default() };
            let options = NamespaceOption { userns_options: Some(users), ..Default::default() };
            PodSpec::from_cri(with_namespaces(options), "/run/netns/x", &Config::default())
        };
        assert!(users(NamespaceMode::Node).is_ok());
        let namespaces = ["ipc", "network", "pid", "user"].map(str::to_owned).into();
        let spec = PauseSpec { netns: "/run/netns/x".into(), namespaces, ..PauseSpec::default() };
        for refused in [users(NamespaceMode::Pod), PodSpec::from_pause(&spec, &Config::default())] {
            let error = refused.unwrap_err().to_string();
            assert!(error.contains("user namespace"), "{error}");
        }
    }

    fn with_namespaces(options: NamespaceOption) -> PodSandboxConfig {
        let context = LinuxSandboxSecurityContext { namespace_options: Some(options), ..Default::default() };
        let linux = LinuxPodSandboxConfig { security_context: Some(context), ..Default::default() };
        PodSandboxConfig { linux: Some(linux), ..Default::default() }
    }

    #[test]
    fn sysctls_of_the_kernel_as_a_whole_are_refused() {
        let sysctls = |name: &str| -> HashMap<_, _> { [(name.to_owned(), "1".to_owned())].into() };
        let pod = |name: &str| {
            let linux = LinuxPodSandboxConfig { sysctls: sysctls(name), ..Default::default() };
            let message = PodSandboxConfig { linux: Some(linux), ..Default::default() };
            PodSpec::from_cri(message, "/run/netns/x", &Config::default())
        };
        assert_eq!(pod("net.core.somaxconn").unwrap().sysctls.len(), 1);
        let error = pod("kernel.panic").unwrap_err().to_string();
        assert!(error.contains("kernel.panic") && error.contains("pod's own"), "{error}");
    }

    #[test]
    fn a_pod_without_namespace_must_ask_for_none() {
        let config = Config::default();
        assert!(PodSpec::from_cri(PodSandboxConfig::default(), "", &config).is_err());
        let annotations = [("a3s.box/network-mode".to_owned(), "none".to_owned())].into();
        let message = PodSandboxConfig { annotations, ..Default::default() };
        assert_eq!(PodSpec::from_cri(message, "/run/netns/x", &config).unwrap().netns, None);
    }

    #[test]
    fn the_pause_container_tells_the_pods_limits_and_cgroup() {
        let annotations = [
            ("io.kubernetes.cri.sandbox-memory".to_owned(), "1048576".to_owned()),
            ("io.kubernetes.cri.sandbox-cpu-quota".to_owned(), "-1".to_owned()),
        ];
        let spec = PauseSpec {
            annotations: annotations.into(),
            netns: "/run/netns/cni-1".into(),
            namespaces: ["ipc", "network", "pid"].map(str::to_owned).into(),
            cgroups_path: "kubepods-pod1.slice:cri-containerd:abc".into(),
            ..PauseSpec::default()
        };
        let pod = PodSpec::from_pause(&spec, &Config::default()).unwrap();
        assert_eq!(pod.limits, Declared { memory: 1 << 20, ..Declared::default() });
        assert_eq!(pod.cgroup_parent, "kubepods-pod1.slice");
        let spec = PauseSpec { cgroups_path: "/kubepods/pod1/abc".into(), ..spec };
        assert_eq!(PodSpec::from_pause(&spec, &Config::default()).unwrap().cgroup_parent, "/kubepods/pod1");
    }

    #[test]
    fn more_networks_want_more_interfaces() {
        let count = |list: &str| more_interfaces(&[(NETWORKS.to_owned(), list.to_owned())].into());
        assert_eq!(more_interfaces(&HashMap::new()), 0);
        assert_eq!((count(""), count("macvlan"), count("a/b@net1, c")), (0, 1, 2));
        assert_eq!((count("[]"), count(r#"[{"name": "a", "ips": ["10.1.1.1", "10.1.1.2"]}]"#)), (0, 1));
    }
}
