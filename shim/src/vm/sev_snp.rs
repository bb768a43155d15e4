//! AMD's SEV-SNP: what a host needs to run confidential VMs, and which of it is missing here.

use std::{fs, path::Path};

/// What the kernel says when the host side is set up.
const PARAMETER: &str = "/sys/module/kvm_amd/parameters/sev_snp";
/// The platform's security processor.
const DEVICE: &str = "/dev/sev";

/// Why a pod that asks for it cannot have it: what this host lacks, or that this version makes no use of it.
pub fn refusal() -> String {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let parameter = fs::read_to_string(PARAMETER).unwrap_or_default();
    let lacking = lacking(&cpuinfo, &parameter, Path::new(DEVICE).exists());
    if lacking.is_empty() {
        return "this version runs no confidential VMs, though the host could: none is accepted".into();
    }
    format!("this host cannot run confidential VMs, it lacks {}: none is accepted", lacking.join(", "))
}

fn lacking(cpuinfo: &str, parameter: &str, device: bool) -> Vec<String> {
    let flags = cpuinfo.lines().find(|line| line.starts_with("flags")).unwrap_or_default();
    let has = |flag: &str| flags.split_ascii_whitespace().any(|word| word == flag);
    let enabled = matches!(parameter.trim(), "Y" | "1");
    [
        (has("svm"), "the processor's virtualization (flag svm)".to_owned()),
        (has("sev_snp"), "the processor's SEV-SNP (flag sev_snp)".to_owned()),
        (enabled, format!("the kernel's support ({PARAMETER} = Y)")),
        (device, format!("the security processor ({DEVICE})")),
    ]
    .into_iter()
    .filter_map(|(there, what)| (!there).then_some(what))
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_is_missing_is_named() {
        assert_eq!(lacking("flags\t\t: fpu svm sev sev_snp\n", "Y\n", true), Vec::<String>::new());
        let all = lacking("flags\t\t: fpu vmx\n", "", false).join(" ");
        assert!(["svm", "sev_snp", PARAMETER, DEVICE].iter().all(|word| all.contains(word)), "{all}");
        assert_eq!(lacking("flags\t\t: svm sev_snp\n", "N\n", true).len(), 1);
    }
}
