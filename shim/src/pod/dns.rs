//! The files of names: `resolv.conf` and `hosts`.

use std::{fs, io, net::IpAddr};

/// systemd-resolved's stub, which listens on the host's loopback only.
const STUB: &str = "127.0.0.53";
/// Where it keeps the servers that it asks itself.
const UPSTREAM: &str = "/run/systemd/resolve/resolv.conf";

/// What a pod declares about names.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Dns {
    /// Addresses.
    pub servers: Vec<String>,
    /// Domains.
    pub searches: Vec<String>,
    /// Options of the resolver.
    pub options: Vec<String>,
}

impl Dns {
    /// The content of `resolv.conf`; nothing declared means the host's.
    ///
    /// # Errors
    /// The host's cannot be read.
    pub fn resolv_conf(&self) -> io::Result<String> {
        if *self != Self::default() {
            return Ok(self.render());
        }
        let host = read_or_empty("/etc/resolv.conf")?;
        if names_only_the_stub(&host) { read_or_empty(UPSTREAM) } else { Ok(host) }
    }

    fn render(&self) -> String {
        let mut text = String::new();
        if !self.searches.is_empty() {
            text += &format!("search {}\n", self.searches.join(" "));
        }
        for server in &self.servers {
            text += &format!("nameserver {server}\n");
        }
        if !self.options.is_empty() {
            text += &format!("options {}\n", self.options.join(" "));
        }
        text
    }
}

fn read_or_empty(path: &str) -> io::Result<String> {
    match fs::read_to_string(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        other => other,
    }
}

fn names_only_the_stub(resolv_conf: &str) -> bool {
    let mut servers = resolv_conf.lines().filter_map(|line| line.trim().strip_prefix("nameserver"));
    servers.clone().count() > 0 && servers.all(|server| server.trim() == STUB)
}

/// The content of `hosts`: the loopback's names, and the pod's own at its addresses.
pub fn hosts(hostname: &str, addresses: impl IntoIterator<Item = IpAddr>) -> String {
    let mut text = String::from(
        "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nfe00::0\tip6-localnet\n\
         ff00::0\tip6-mcastprefix\nff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n",
    );
    if !hostname.is_empty() {
        for address in addresses {
            text += &format!("{address}\t{hostname}\n");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_declared_is_written_as_kubelet_writes_it() {
        let dns = Dns {
            servers: vec!["10.0.0.10".into(), "10.0.0.11".into()],
            searches: vec!["ns.svc.cluster.local".into(), "svc.cluster.local".into()],
            options: vec!["ndots:5".into()],
        };
        assert_eq!(
            dns.resolv_conf().unwrap(),
            "search ns.svc.cluster.local svc.cluster.local\nnameserver 10.0.0.10\nnameserver 10.0.0.11\n\
             options ndots:5\n"
        );
    }

    #[test]
    fn a_stub_on_the_hosts_loopback_is_of_no_use_to_a_pod() {
        assert!(names_only_the_stub("# x\nnameserver 127.0.0.53\noptions edns0\n"));
        assert!(!names_only_the_stub("nameserver 127.0.0.53\nnameserver 1.1.1.1\n"));
        assert!(!names_only_the_stub("search x\n"));
    }

    #[test]
    fn the_pod_is_found_by_its_name_at_each_address() {
        let text = hosts("web", ["10.1.0.2".parse().unwrap(), "fd00::2".parse().unwrap()]);
        assert!(text.starts_with("127.0.0.1\tlocalhost\n"));
        assert!(text.ends_with("10.1.0.2\tweb\nfd00::2\tweb\n"));
    }
}
