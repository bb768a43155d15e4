//! Kernel parameters that a pod may set: those that the kernel keeps for each namespace. That the guest's kernel is the
//! pod's alone changes nothing: a pod means the same on every runtime.

use std::path::{Path, PathBuf};

/// Where the kernel has them.
const ROOT: &str = "/proc/sys";
/// Beginnings of a pod's: kubelet's list.
const NAMESPACED: [&str; 4] = ["fs/mqueue/", "kernel/msg", "kernel/shm", "net/"];
/// The one that is not a group.
const SEMAPHORES: &str = "kernel/sem";
/// Longer than any name.
const MAX_NAME: usize = 4096;

/// Why a parameter cannot be a pod's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotThePods {
    /// It would not be a path below `/proc/sys`.
    #[error("it is no sysctl's name")]
    Name,
    /// It is of the kernel as a whole.
    #[error("only kernel.shm*, kernel.msg*, kernel.sem, fs.mqueue.* and net.* are a pod's own")]
    Kernel,
}

/// Refuses a name that is not of the pod's own parameters.
///
/// # Errors
/// It is none, or of the kernel as a whole.
pub fn check(name: &str) -> Result<(), NotThePods> {
    let relative = relative(name)?;
    if relative == SEMAPHORES || NAMESPACED.iter().any(|group| relative.starts_with(group)) {
        return Ok(());
    }
    Err(NotThePods::Kernel)
}

/// The file of a parameter, a pod's own or not.
///
/// # Errors
/// [`NotThePods::Name`]: no file below `/proc/sys` has such a name.
pub fn path(name: &str) -> Result<PathBuf, NotThePods> {
    Ok(Path::new(ROOT).join(relative(name)?))
}

/// As in sysctl(8), the first of a name's dots and slashes is what separates its parts, and the other belongs to them:
/// `net/ipv4/conf/eth0.100/forwarding` is `net.ipv4.conf.eth0/100.forwarding`, as kubelet has it.
fn relative(name: &str) -> Result<String, NotThePods> {
    let slashed = name.find(['.', '/']).is_some_and(|first| name[first..].starts_with('/'));
    let swap = |c| match c {
        '.' => '/',
        '/' => '.',
        other => other,
    };
    let relative = if slashed { name.to_owned() } else { name.chars().map(swap).collect() };
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | ':' | '@');
    let is_sound = |part: &str| !matches!(part, "" | "." | "..") && part.chars().all(allowed);
    if name.len() > MAX_NAME || !relative.split('/').all(is_sound) {
        return Err(NotThePods::Name);
    }
    Ok(relative)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_sysctls_of_the_pods_own_are_accepted() {
        for good in [
            "kernel.shm_rmid_forced",
            "kernel.sem",
            "fs.mqueue.msg_max",
            "net.core.somaxconn",
            "net/ipv4/conf/eth0.1/forwarding",
            "net.ipv4.conf.eth0/1.forwarding",
        ] {
            assert_eq!(check(good), Ok(()), "{good:?}");
        }
        for (bad, why) in [
            ("kernel.hostname", NotThePods::Kernel),
            ("kernel.panic", NotThePods::Kernel),
            ("vm.swappiness", NotThePods::Kernel),
            ("netx", NotThePods::Kernel),
            ("net..x", NotThePods::Name),
            ("net.../../kernel/core_pattern", NotThePods::Name),
            ("net.ipv4/../../kernel/panic", NotThePods::Name),
            ("net/../kernel/panic", NotThePods::Name),
            ("net.//.kernel.panic", NotThePods::Name),
            ("/net/core/somaxconn", NotThePods::Name),
            ("net.a b", NotThePods::Name),
            ("net.a\0", NotThePods::Name),
            ("", NotThePods::Name),
        ] {
            assert_eq!(check(bad), Err(why), "{bad:?}");
        }
    }

    #[test]
    fn both_ways_of_writing_a_name_lead_to_one_file() {
        assert_eq!(path("kernel.shm_rmid_forced"), Ok("/proc/sys/kernel/shm_rmid_forced".into()));
        for name in ["net/ipv4/conf/eth0.100/forwarding", "net.ipv4.conf.eth0/100.forwarding"] {
            assert_eq!(path(name), Ok("/proc/sys/net/ipv4/conf/eth0.100/forwarding".into()));
        }
        assert_eq!(path("vm.overcommit_memory"), Ok("/proc/sys/vm/overcommit_memory".into()));
    }
}
