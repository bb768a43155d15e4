//! Kernel parameters that a pod may set: those that the kernel keeps for each namespace. That the guest's kernel is the
//! pod's alone changes nothing: a pod means the same on every runtime.

/// Beginnings of them: kubelet's list.
const NAMESPACED: [&str; 4] = ["fs.mqueue.", "kernel.msg", "kernel.shm", "net."];
/// The one that is not a group.
const SEMAPHORES: &str = "kernel.sem";
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
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '/');
    let parts_are_sound = |text: &str| text.split('.').all(|part| !part.is_empty());
    let dotted = dotted(name);
    // The name becomes a path.
    if name.len() > MAX_NAME || !name.chars().all(allowed) || !parts_are_sound(&dotted) {
        return Err(NotThePods::Name);
    }
    if dotted == SEMAPHORES || NAMESPACED.iter().any(|group| dotted.starts_with(group)) {
        return Ok(());
    }
    Err(NotThePods::Kernel)
}

/// `net/ipv4/conf/eth0.1/x` is the other way of writing such a name, in which a dot is a part's own; here a slash is.
fn dotted(name: &str) -> String {
    let slashed = name.find(['.', '/']).is_some_and(|first| name[first..].starts_with('/'));
    if slashed { name.replace('.', "_").replace('/', ".") } else { name.to_owned() }
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
            ("net.a b", NotThePods::Name),
            ("", NotThePods::Name),
        ] {
            assert_eq!(check(bad), Err(why), "{bad:?}");
        }
    }
}
