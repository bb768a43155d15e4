//! kubelet's own volumes, told by their paths: `<root>/pods/<uid>/volumes/kubernetes.io~<plugin>/<name>`.

use std::path::{Component, Path};

/// What kubelet does with a volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Plugin {
    /// Writes it by its AtomicWriter: a new directory, and a rename of the link `..data` that leads to it.
    Written,
    /// An emptyDir, on whatever medium.
    EmptyDir,
}

/// The plugin whose volume a path is; none below a volume, or elsewhere.
pub fn plugin(path: &Path) -> Option<Plugin> {
    let mut parts = path.components().rev().map(|part| match part {
        Component::Normal(name) => name.to_str(),
        _ => None,
    });
    let (_name, plugin, volumes) = (parts.next()??, parts.next()??, parts.next()??);
    if volumes != "volumes" {
        return None;
    }
    match plugin.strip_prefix("kubernetes.io~")? {
        "configmap" | "secret" | "projected" | "downward-api" => Some(Plugin::Written),
        "empty-dir" => Some(Plugin::EmptyDir),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn volumes_are_told_by_their_paths() {
        let of = |path: &str| plugin(Path::new(path));
        let pod = "/var/lib/kubelet/pods/0f3e";
        for name in ["configmap", "secret", "projected", "downward-api"] {
            assert_eq!(of(&format!("{pod}/volumes/kubernetes.io~{name}/v")), Some(Plugin::Written));
        }
        assert_eq!(of(&format!("{pod}/volumes/kubernetes.io~empty-dir/cache")), Some(Plugin::EmptyDir));
        for other in [
            "/volumes/kubernetes.io~csi/v",
            "/volumes/kubernetes.io~secret",
            "/volumes/kubernetes.io~secret/v/file",
            "/volume-subpaths/v/main/0",
            "/kubernetes.io~secret/v",
        ] {
            assert_eq!(of(&format!("{pod}{other}")), None, "{other}");
        }
    }
}
