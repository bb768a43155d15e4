//! The annotations under `a3s.box/`: tenants write them, so each is checked, and none is ignored.

use std::collections::HashMap;

use a3s_box_proto::config::Config;

use crate::vm::sev_snp;

/// What all of ours begin with.
const PREFIX: &str = "a3s.box/";

/// An annotation that cannot be obeyed.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("annotation {name} = {value:?}: {accepted}")]
pub struct InvalidAnnotation {
    name: String,
    value: String,
    accepted: String,
}

impl InvalidAnnotation {
    /// An error that says what would be accepted.
    pub fn new(name: &str, value: &(impl ToString + ?Sized), accepted: impl Into<String>) -> Self {
        Self { name: name.to_owned(), value: value.to_string(), accepted: accepted.into() }
    }
}

/// How the pod is connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum NetworkMode {
    /// By CNI.
    #[default]
    Bridge,
    /// Loopback only.
    None,
}

/// What a pod's annotations ask for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Annotations {
    /// Virtual processors.
    pub vcpus: Option<u32>,
    /// Memory of the VM, MiB.
    pub memory_mb: Option<u64>,
    /// Size of the scratch disk, MiB.
    pub scratch_mb: Option<u64>,
    /// How the pod is connected.
    pub network: NetworkMode,
}

/// The name of the annotation for the VM's processors.
pub const VCPUS: &str = "a3s.box/vcpus";
/// The name of the annotation for the VM's memory.
pub const MEMORY_MB: &str = "a3s.box/memory-mb";

impl Annotations {
    /// Reads a pod's annotations; those of others are not looked at.
    ///
    /// # Errors
    /// One of ours is unknown, not allowed, or has a bad value.
    pub fn parse(all: &HashMap<String, String>, config: &Config) -> Result<Self, InvalidAnnotation> {
        let mut annotations = Self::default();
        // In order, so that of several mistakes the same one is reported each time.
        let mut ours: Vec<_> = all.iter().filter(|(name, _)| name.starts_with(PREFIX)).collect();
        ours.sort();
        for (name, value) in ours {
            if !config.annotations.allowed.contains(name) {
                let allowed = config.annotations.allowed.join(", ");
                return Err(InvalidAnnotation::new(name, value, format!("not allowed here; {allowed} are")));
            }
            annotations.take(name, value, config)?;
        }
        Ok(annotations)
    }

    fn take(&mut self, name: &str, value: &str, config: &Config) -> Result<(), InvalidAnnotation> {
        let refuse = |accepted: &str| Err(InvalidAnnotation::new(name, value, accepted));
        match name {
            VCPUS => self.vcpus = Some(number(name, value, 1, config.vm.max_vcpus.into())? as u32),
            MEMORY_MB => self.memory_mb = Some(number(name, value, 64, config.vm.max_memory_mb)?),
            "a3s.box/scratch-mb" => {
                self.scratch_mb = Some(number(name, value, 16, config.scratch.max_mb)?);
            }
            // Checked here, where the pod begins; it is the frontend that writes it into each container's limits.
            "a3s.box/pids-limit" => drop(number(name, value, 1, config.pids.max)?),
            "a3s.box/network-mode" => match value {
                "bridge" => self.network = NetworkMode::Bridge,
                "none" => self.network = NetworkMode::None,
                _ => return refuse("bridge or none is accepted"),
            },
            "a3s.box/tee" => match value {
                "none" => {}
                "sev-snp" => return refuse(&sev_snp::refusal()),
                _ => return refuse("none or sev-snp is accepted"),
            },
            "a3s.box/tee-generation" if !matches!(value, "milan" | "genoa" | "turin") => {
                return refuse("milan, genoa or turin is accepted");
            }
            "a3s.box/workload-id" if !is_workload_id(value) => {
                return refuse("1 to 253 characters of A-Z a-z 0-9 . _ - are accepted");
            }
            "a3s.box/pool" if value != "off" => {
                return refuse("no pool is configured: off is accepted");
            }
            "a3s.box/tee-generation" | "a3s.box/workload-id" | "a3s.box/pool" => {}
            _ => return refuse("there is no such annotation"),
        }
        Ok(())
    }
}

fn number(name: &str, value: &str, least: u64, most: u64) -> Result<u64, InvalidAnnotation> {
    // "+5" and " 5" parse in Rust and nowhere else.
    let digits = !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit());
    value.parse().ok().filter(|number| digits && (least..=most).contains(number)).ok_or_else(|| {
        InvalidAnnotation::new(name, value, format!("a number from {least} to {most} is accepted"))
    })
}

fn is_workload_id(value: &str) -> bool {
    (1..=253).contains(&value.len())
        && value.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(pairs: &[(&str, &str)]) -> Result<Annotations, InvalidAnnotation> {
        let all = pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Annotations::parse(&all, &Config::default())
    }

    #[test]
    fn good_values_are_taken_and_others_annotations_left_alone() {
        let annotations = parse(&[
            ("a3s.box/vcpus", "2"),
            ("a3s.box/memory-mb", "512"),
            ("a3s.box/network-mode", "none"),
            ("a3s.box/tee", "none"),
            ("kubernetes.io/config.source", "file"),
        ]);
        let expected = Annotations {
            vcpus: Some(2),
            memory_mb: Some(512),
            scratch_mb: None,
            network: NetworkMode::None,
        };
        assert_eq!(annotations, Ok(expected));
    }

    #[test]
    fn bad_values_are_refused_with_name_value_and_what_is_accepted() {
        for (name, value, accepted) in [
            ("a3s.box/vcpus", "0", "1 to 32"),
            ("a3s.box/vcpus", "+2", "1 to 32"),
            ("a3s.box/memory-mb", "lots", "64 to 65536"),
            ("a3s.box/memory-mb", "99999999999999999999", "64 to 65536"),
            ("a3s.box/scratch-mb", "1", "16 to 102400"),
            ("a3s.box/network-mode", "host", "bridge or none"),
            ("a3s.box/tee", "sev-snp", "none"),
            ("a3s.box/pool", "fast", "off"),
            ("a3s.box/workload-id", "a b", "253"),
            ("a3s.box/vcpu", "2", "a3s.box/vcpus"),
        ] {
            let error = parse(&[(name, value)]).unwrap_err().to_string();
            assert!([name, value, accepted].iter().all(|part| error.contains(part)), "{error}");
        }
    }

    #[test]
    fn the_configuration_may_forbid_any() {
        let mut config = Config::default();
        config.annotations.allowed.clear();
        let all = [("a3s.box/vcpus".to_owned(), "2".to_owned())].into();
        assert!(Annotations::parse(&all, &config).is_err());
    }
}
