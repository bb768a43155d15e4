//! Which of an index's images fits this machine: containerd's order of preference.

use serde::Deserialize;

/// What an image is made for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(super) struct Platform {
    /// GOOS.
    pub os: String,
    /// GOARCH.
    pub architecture: String,
    /// Of the architecture.
    pub variant: String,
}

/// How well a platform fits a machine (Rust's name of its architecture): smaller is better, nothing is not at all.
pub(super) fn rank(platform: &Platform, machine: &str) -> Option<usize> {
    if platform.os != "linux" {
        return None;
    }
    let wanted: &[(&str, &str)] = match machine {
        "x86_64" => &[("amd64", "v1"), ("386", "")],
        "aarch64" => &[("arm64", "v8"), ("arm", "v8"), ("arm", "v7"), ("arm", "v6"), ("arm", "v5")],
        "riscv64" => &[("riscv64", "")],
        "powerpc64" => &[("ppc64le", "")],
        "s390x" => &[("s390x", "")],
        _ => &[],
    };
    let architecture = match platform.architecture.as_str() {
        "x86_64" | "x86-64" => "amd64",
        "aarch64" => "arm64",
        "i386" => "386",
        other => other,
    };
    let variant = match (architecture, platform.variant.as_str()) {
        ("amd64", "") => "v1",
        ("arm64", "" | "8") => "v8",
        ("arm", "") => "v7",
        (_, variant) => variant,
    };
    wanted.iter().position(|wanted| *wanted == (architecture, variant))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rank_of(os: &str, architecture: &str, variant: &str, machine: &str) -> Option<usize> {
        rank(&Platform { os: os.into(), architecture: architecture.into(), variant: variant.into() }, machine)
    }

    #[test]
    fn the_own_architecture_comes_first_and_strange_ones_never() {
        assert_eq!(rank_of("linux", "amd64", "", "x86_64"), Some(0));
        assert_eq!(rank_of("linux", "386", "", "x86_64"), Some(1));
        assert_eq!(rank_of("linux", "amd64", "v3", "x86_64"), None);
        assert_eq!(rank_of("linux", "arm64", "v8", "aarch64"), Some(0));
        assert_eq!(rank_of("linux", "arm", "", "aarch64"), Some(2));
        for (os, architecture) in [("windows", "amd64"), ("unknown", "unknown"), ("linux", "arm64"), ("", "")]
        {
            assert_eq!(rank_of(os, architecture, "", "x86_64"), None);
        }
    }
}
