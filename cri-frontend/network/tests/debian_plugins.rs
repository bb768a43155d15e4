//! CNI with the plugins that everybody uses, where they are installed and the tests run as root.
//!
//! The "host" is a network namespace of the test's own: plugins are run from a thread that has entered it.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::{fs, os::fd::AsFd, path::Path, thread};

use a3s_box_network::{Cni, NetworkNamespace, PodNetwork, PortMapping, Protocol, RuntimeArguments};
use a3s_box_proto::{config::Network, ids::SandboxId};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

const PLUGINS: &str = "/usr/lib/cni";

fn can_run() -> bool {
    let installed =
        ["bridge", "host-local", "portmap"].iter().all(|name| Path::new(PLUGINS).join(name).exists());
    installed && rustix::process::geteuid().is_root()
}

/// Runs something in a namespace, on a thread of its own, whose children and threads are then there too.
fn inside<T: Send + 'static>(netns: &Path, work: impl FnOnce() -> T + Send + 'static) -> T {
    let file = fs::File::open(netns).unwrap();
    let entered = thread::spawn(move || {
        move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
        work()
    });
    entered.join().unwrap()
}

fn block_on<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

fn interfaces(netns: &Path) -> Vec<String> {
    let table = inside(netns, || fs::read_to_string("/proc/thread-self/net/dev").unwrap());
    table.lines().skip(2).filter_map(|line| Some(line.split_once(':')?.0.trim().to_owned())).collect()
}

fn write_configuration(dir: &Path) -> Network {
    let conf_dir = dir.join("conf");
    fs::create_dir(&conf_dir).unwrap();
    let leases = dir.join("leases");
    let list = serde_json::json!({"cniVersion": "1.0.0", "name": "test", "plugins": [
        {"type": "bridge", "bridge": "br0", "isGateway": true, "ipMasq": false,
         "ipam": {"type": "host-local", "dataDir": leases, "routes": [{"dst": "0.0.0.0/0"}],
                  "ranges": [[{"subnet": "fd00:9::/64"}], [{"subnet": "10.9.0.0/24"}]]}},
        {"type": "portmap", "capabilities": {"portMappings": true}},
    ]});
    fs::write(conf_dir.join("10-test.conflist"), list.to_string()).unwrap();
    let bin_dirs = vec![PLUGINS.into()];
    Network { conf_dir, bin_dirs, cache_dir: dir.join("cache"), plugin_timeout_s: 60, ..Network::default() }
}

fn leases(dir: &Path) -> usize {
    let is_lease = |name: &str| name.starts_with("10.") || name.starts_with("fd00");
    let files = fs::read_dir(dir.join("leases/test")).unwrap();
    files.filter(|file| is_lease(&file.as_ref().unwrap().file_name().to_string_lossy())).count()
}

fn pod(id: &str, netns: &NetworkNamespace) -> PodNetwork {
    PodNetwork {
        sandbox_id: id.parse().unwrap(),
        namespace: "default".into(),
        name: "web".into(),
        uid: "u".into(),
        netns: netns.path().to_owned(),
        arguments: RuntimeArguments {
            port_mappings: vec![PortMapping {
                protocol: Protocol::Tcp,
                container_port: 80,
                host_port: 8080,
                host_ip: None,
            }],
            ..RuntimeArguments::default()
        },
    }
}

#[test]
fn a_pod_is_attached_to_a_bridge_and_detached_without_a_trace() {
    if !can_run() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let netns_dir = dir.path().join("netns");
    let id = |name: &str| name.parse::<SandboxId>().unwrap();
    let host = block_on(NetworkNamespace::create(&netns_dir, &id("host"))).unwrap();
    let netns = block_on(NetworkNamespace::create(&netns_dir, &id("pod"))).unwrap();
    let cni = Cni::new(&write_configuration(dir.path()));
    let pod = pod("pod", &netns);

    let (adding, wanted) = (cni.clone(), pod.clone());
    let ips = inside(host.path(), move || block_on(adding.add(&wanted))).unwrap();
    assert_eq!(ips, ["10.9.0.2", "fd00:9::2"].map(|ip| ip.parse::<std::net::IpAddr>().unwrap()));
    assert_eq!(interfaces(netns.path()), ["lo", "eth0"]);
    assert_eq!(leases(dir.path()), 2);
    assert_eq!(interfaces(host.path()).len(), 3, "loopback, the bridge and one end of a veth");

    // A restart of the frontend, a configuration that is gone, a namespace that is gone.
    let cni = Cni::new(&Network { bin_dirs: vec![PLUGINS.into()], ..network_of(dir.path()) });
    fs::remove_file(dir.path().join("conf/10-test.conflist")).unwrap();
    block_on(netns.remove()).unwrap();
    inside(host.path(), move || {
        block_on(cni.del(&pod)).unwrap();
        block_on(cni.del(&pod)).unwrap();
    });
    assert_eq!(leases(dir.path()), 0);
    assert_eq!(fs::read_dir(dir.path().join("cache/a3s-box")).unwrap().count(), 0);
    block_on(host.remove()).unwrap();
}

fn network_of(dir: &Path) -> Network {
    Network { conf_dir: dir.join("conf"), cache_dir: dir.join("cache"), ..Network::default() }
}
