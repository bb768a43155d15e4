//! The VM's size, from the pod's limits, its host cgroup, its annotations and the node's ceilings.

use a3s_box_proto::config::Vm;

use super::annotations::{Annotations, InvalidAnnotation, MEMORY_MB, VCPUS};
use crate::{
    cgroup::Limited,
    error::{Error, Result},
    vm::Size,
};

/// Limits that a pod declares; 0 where it declares none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Declared {
    /// Microseconds of processor time in each period.
    pub cpu_quota: u64,
    /// Length of a period in microseconds.
    pub cpu_period: u64,
    /// Bytes of memory.
    pub memory: u64,
}

impl Declared {
    fn vcpus(self) -> u64 {
        let period = if self.cpu_period == 0 { 100_000 } else { self.cpu_period };
        self.cpu_quota.div_ceil(period)
    }
}

/// Computes the size. kubelet sums only those containers that declare a limit, so a declared limit is the whole
/// pod's only where the pod's cgroup on the host carries one too; else the configured default is the least.
///
/// # Errors
/// It would be above a ceiling, or an annotation asks for more than the pod declared.
pub fn of(
    limits: Declared,
    overhead: Declared,
    host: Limited,
    annotations: &Annotations,
    config: &Vm,
) -> Result<Size> {
    let vcpus = match annotations.vcpus {
        Some(wanted) => {
            let most = limits.vcpus() + overhead.vcpus();
            within_declared(VCPUS, wanted.into(), most, limits.cpu_quota)?;
            u64::from(wanted)
        }
        None => at_least_default(limits.vcpus(), host.cpu, config.default_vcpus.into()).max(1),
    };
    let memory_mb = match annotations.memory_mb {
        Some(wanted) => {
            let most = limits.memory.saturating_add(overhead.memory).div_ceil(1 << 20);
            within_declared(MEMORY_MB, wanted, most, limits.memory)?;
            wanted
        }
        None if limits.memory == 0 => config.default_memory_mb,
        None => {
            let whole = limits.memory.div_ceil(1 << 20) + config.guest_overhead_mb;
            at_least_default(whole, host.memory, config.default_memory_mb)
        }
    };
    ceiling("processors", vcpus, "vm.max_vcpus", config.max_vcpus.into())?;
    ceiling("MiB of memory", memory_mb, "vm.max_memory_mb", config.max_memory_mb)?;
    // The ceiling on processors is a u32.
    Ok(Size { vcpus: u32::try_from(vcpus).unwrap_or(u32::MAX), memory_mb })
}

fn at_least_default(declared: u64, carried_by_host: bool, default: u64) -> u64 {
    if declared > 0 && carried_by_host { declared } else { declared.max(default) }
}

fn within_declared(name: &str, wanted: u64, most: u64, declared: u64) -> Result<()> {
    if declared > 0 && wanted > most {
        let accepted = format!("above the pod's declared limit and overhead: at most {most} is accepted");
        return Err(InvalidAnnotation::new(name, &wanted, accepted).into());
    }
    Ok(())
}

fn ceiling(what: &str, value: u64, key: &str, most: u64) -> Result<()> {
    if value > most {
        return Err(Error::invalid(
            "the pod's limits",
            format!("a VM of {value} {what} is above this node's {key} ({most})"),
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const CARRIED: Limited = Limited { cpu: true, memory: true };
    const NOT_CARRIED: Limited = Limited { cpu: false, memory: false };

    fn limits(millicpu: u64, memory_mb: u64) -> Declared {
        Declared { cpu_quota: millicpu * 100, cpu_period: 100_000, memory: memory_mb << 20 }
    }

    fn size(limits: Declared, host: Limited, annotations: &Annotations) -> Result<(u32, u64)> {
        let overhead = Declared { memory: 128 << 20, ..Declared::default() };
        let size = of(limits, overhead, host, annotations, &Vm::default())?;
        Ok((size.vcpus, size.memory_mb))
    }

    #[test]
    fn a_pod_without_limits_has_the_default() {
        assert_eq!(size(Declared::default(), CARRIED, &Annotations::default()).unwrap(), (1, 256));
    }

    #[test]
    fn limits_size_the_vm_and_processors_are_rounded_up() {
        let none = Annotations::default();
        assert_eq!(size(limits(1500, 512), CARRIED, &none).unwrap(), (2, 576));
        assert_eq!(size(limits(100, 32), CARRIED, &none).unwrap(), (1, 96));
        let mut odd = limits(0, 0);
        odd.memory = (100 << 20) + 1;
        assert_eq!(size(odd, CARRIED, &none).unwrap(), (1, 165));
    }

    #[test]
    fn limits_of_some_containers_never_make_the_vm_smaller_than_the_default() {
        assert_eq!(size(limits(100, 32), NOT_CARRIED, &Annotations::default()).unwrap(), (1, 256));
    }

    #[test]
    fn annotations_override_within_what_was_declared() {
        let wish = Annotations { vcpus: Some(1), memory_mb: Some(600), ..Annotations::default() };
        assert_eq!(size(limits(2000, 512), CARRIED, &wish).unwrap(), (1, 600));
        let greedy = Annotations { memory_mb: Some(641), ..Annotations::default() };
        let error = size(limits(2000, 512), CARRIED, &greedy).unwrap_err().to_string();
        assert!(error.contains(MEMORY_MB) && error.contains("at most 640"), "{error}");
        let free = Annotations { vcpus: Some(4), ..Annotations::default() };
        assert_eq!(size(Declared::default(), CARRIED, &free).unwrap(), (4, 256));
    }

    #[test]
    fn a_ceiling_is_an_error_and_never_clamps() {
        let error = size(limits(33_000, 0), CARRIED, &Annotations::default()).unwrap_err().to_string();
        assert!(error.contains("vm.max_vcpus (32)"), "{error}");
    }
}
