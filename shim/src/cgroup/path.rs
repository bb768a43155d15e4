//! Where a pod's processes belong in the host's cgroup tree.

use std::path::{Component, Path, PathBuf};

use a3s_box_proto::ids::SandboxId;

use crate::error::{Error, Result};

/// The parent of pods that name none.
const DEFAULT_PARENT: &str = "/a3s-box";

/// The pod's cgroup, relative to the root of each hierarchy. A parent that ends in `.slice` is systemd's: its place
/// follows from its name alone.
///
/// # Errors
/// The parent could lead out of the tree.
pub fn of_pod(parent: &str, pod: &SandboxId) -> Result<PathBuf> {
    let parent = if parent.trim_matches('/').is_empty() { DEFAULT_PARENT } else { parent };
    let refused = |reason: &str| Error::invalid(format!("cgroup parent {parent:?}"), reason);
    let mut path = PathBuf::new();
    for component in Path::new(parent).components() {
        match component {
            Component::RootDir | Component::CurDir => {}
            Component::Normal(name) => path.push(name),
            Component::ParentDir | Component::Prefix(_) => return Err(refused("'..' is not accepted")),
        }
    }
    if let Some(slice) = parent.rsplit('/').next().filter(|name| name.ends_with(".slice")) {
        path = expand_slice(slice).ok_or_else(|| refused("no name of a systemd slice"))?;
    }
    Ok(path.join(format!("a3s-{pod}")))
}

/// `a-b.slice` lies in `a.slice/a-b.slice`.
fn expand_slice(slice: &str) -> Option<PathBuf> {
    let name = slice.strip_suffix(".slice")?;
    let mut path = PathBuf::new();
    if name == "-" {
        return Some(path);
    }
    let mut prefix = String::new();
    for part in name.split('-') {
        if part.is_empty() {
            return None;
        }
        if !prefix.is_empty() {
            prefix.push('-');
        }
        prefix.push_str(part);
        path.push(format!("{prefix}.slice"));
    }
    Some(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(parent: &str) -> Option<String> {
        let pod = "p1".parse().unwrap();
        of_pod(parent, &pod).ok().map(|path| path.to_str().unwrap().to_owned())
    }

    #[test]
    fn parents_are_expanded_as_systemd_and_kubelet_mean_them() {
        for (parent, expected) in [
            ("", "a3s-box/a3s-p1"),
            ("/", "a3s-box/a3s-p1"),
            ("/kubepods/burstable/pod7", "kubepods/burstable/pod7/a3s-p1"),
            ("a-b.slice", "a.slice/a-b.slice/a3s-p1"),
            ("/a.slice/a-b.slice/a-b-podx_y.slice", "a.slice/a-b.slice/a-b-podx_y.slice/a3s-p1"),
            ("-.slice", "a3s-p1"),
        ] {
            assert_eq!(path(parent).as_deref(), Some(expected), "{parent:?}");
        }
    }

    #[test]
    fn a_parent_never_leads_out_of_the_tree() {
        for parent in ["/../x", "a/../../b", "a--b.slice", ".slice"] {
            assert_eq!(path(parent), None, "{parent:?}");
        }
    }
}
