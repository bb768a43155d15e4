//! The kernel parameters that plugins have set in the pod's network namespace: those that differ from a new one's.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Read},
    os::unix::fs::PermissionsExt,
    path::Path,
};

use rustix::thread::{UnshareFlags, unshare_unsafe};

use crate::sys::thread::apart;

/// What the kernel keeps for each network namespace; it shows those of the thread that looks.
const TREE: &str = "/proc/sys/net";
/// The kernel derives it from the interface's MTU, which is set by itself.
const DERIVED: &str = "mtu";
/// Longer values are tables of the kernel's.
const LONGEST: usize = 1024;

type Values = BTreeMap<String, String>;

/// A new network namespace's parameters.
#[derive(Debug, Clone)]
pub struct Baseline(Values);

impl Baseline {
    /// Makes a namespace, looks, and lets it go.
    ///
    /// # Errors
    /// The kernel makes none.
    pub async fn read() -> io::Result<Self> {
        apart("baseline", || {
            // SAFETY: NEWNET does not take the file descriptor table from the thread.
            unsafe { unshare_unsafe(UnshareFlags::NEWNET) }?;
            io::Result::Ok(Self(values()))
        })
        .await?
    }

    /// What is different in the namespace of this thread, in the order in which it can be set. Interfaces other than the
    /// pod's do not count.
    pub(super) fn changed(&self, interfaces: &[&str]) -> Vec<(String, String)> {
        difference(&self.0, &values(), interfaces)
    }
}

/// All that can be written. What cannot be read is not there: secrets that are not set, and triggers.
fn values() -> Values {
    let mut values = Values::new();
    collect(Path::new(TREE), "net", &mut values);
    values
}

fn collect(dir: &Path, name: &str, values: &mut Values) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let name = format!("{name}/{}", entry.file_name().to_string_lossy());
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            collect(&entry.path(), &name, values);
        } else if let Some(value) = value(&entry.path()) {
            values.insert(name, value);
        }
    }
}

/// There are hundreds, and a pod waits for them: each is opened and read once.
fn value(path: &Path) -> Option<String> {
    let mut file = File::open(path).ok()?;
    let can_be_set = file.metadata().ok()?.permissions().mode() & 0o600 == 0o600;
    let mut text = [0; LONGEST + 1];
    let length = file.read(&mut text).ok()?;
    let text = text.get(..length).filter(|text| can_be_set && text.len() <= LONGEST)?;
    Some(str::from_utf8(text).ok()?.trim_end().to_owned())
}

fn difference(new: &Values, now: &Values, interfaces: &[&str]) -> Vec<(String, String)> {
    let mut changed = Vec::new();
    for (name, value) in now {
        // net/ipv4/conf/eth0/rp_filter: an interface begins with the namespace's default.
        let parts: Vec<&str> = name.split('/').collect();
        let began = match parts.as_slice() {
            ["net", family, kind @ ("conf" | "neigh"), interface, parameter] => {
                if *parameter == DERIVED {
                    continue;
                }
                match *interface {
                    "all" | "default" | "lo" => name.clone(),
                    interface if interfaces.contains(&interface) => {
                        format!("net/{family}/{kind}/default/{parameter}")
                    }
                    _ => continue,
                }
            }
            _ => name.clone(),
        };
        if new.get(&began).is_some_and(|began| began != value) {
            changed.push((name.clone(), value.clone()));
        }
    }
    // Forwarding sets others anew, and what is set for all is set for each.
    changed.sort_by_key(|(name, _)| (!name.contains("forward"), !name.contains("/all/")));
    changed
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(pairs: &[(&str, &str)]) -> Values {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn what_differs_from_a_new_namespace_is_found_interface_by_interface() {
        let new = values(&[
            ("net/core/somaxconn", "4096"),
            ("net/ipv4/ip_forward", "0"),
            ("net/ipv4/conf/all/rp_filter", "0"),
            ("net/ipv4/conf/default/rp_filter", "2"),
            ("net/ipv6/conf/default/mtu", "1280"),
        ]);
        let now = values(&[
            ("net/core/somaxconn", "512"),
            ("net/ipv4/conf/all/rp_filter", "1"),
            ("net/ipv4/conf/default/rp_filter", "2"),
            ("net/ipv4/conf/eth0/rp_filter", "2"),
            ("net/ipv4/conf/net.1/rp_filter", "0"),
            ("net/ipv4/conf/a3s-tap0/rp_filter", "0"),
            ("net/ipv4/ip_forward", "1"),
            ("net/ipv6/conf/eth0/mtu", "1500"),
            ("net/new/since", "1"),
        ]);
        let changed = difference(&new, &now, &["eth0", "net.1"]);
        let names: Vec<&str> = changed.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(
            names,
            [
                "net/ipv4/ip_forward",
                "net/ipv4/conf/all/rp_filter",
                "net/core/somaxconn",
                "net/ipv4/conf/net.1/rp_filter",
            ]
        );
    }

    #[tokio::test]
    async fn a_new_namespace_is_like_another() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let (one, other) = (Baseline::read().await.unwrap(), Baseline::read().await.unwrap());
        assert!(one.0.len() > 100, "{} parameters", one.0.len());
        assert_eq!(difference(&one.0, &other.0, &[]), []);
    }
}
