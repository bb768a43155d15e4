//! The VM's size, from the pod's limits, its host cgroup, its annotations and the node's ceilings.

use a3s_box_proto::{config::Vm, ports::HUGEPAGE_BYTES};

use super::{
    annotations::{InvalidAnnotation, MEMORY_MB, VCPUS},
    spec::PodSpec,
};
use crate::{
    cgroup::Limits,
    error::{Error, Result},
    vm::{Accelerator, Size},
};

/// The guest's huge pages, in MiB.
pub const HUGEPAGE_MB: u64 = HUGEPAGE_BYTES >> 20;

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
/// It would be above a ceiling, an annotation asks for more than the pod declared, or the pod's cgroup on the host has
/// no room for the VM and its VMM: it would be killed as soon as its guest used all its memory.
pub fn of(pod: &PodSpec, host: Limits, accelerator: Accelerator, config: &Vm) -> Result<Size> {
    let (limits, overhead) = (pod.limits, pod.overhead);
    let vcpus = match pod.annotations.vcpus {
        Some(wanted) => {
            let most = limits.vcpus() + overhead.vcpus();
            within_declared(VCPUS, wanted.into(), most, limits.cpu_quota)?;
            u64::from(wanted)
        }
        None => at_least_default(limits.vcpus(), host.cpu, config.default_vcpus.into()).max(1),
    };
    let beside = config.host_overhead_mb + accelerator.buffer_mb();
    let allowed = host.memory.map(|bytes| bytes >> 20);
    // Huge pages are counted beside memory, as Kubernetes does.
    let huge = pod.hugepages.saturating_mul(HUGEPAGE_MB);
    let room = allowed.map(|allowed| allowed.saturating_sub(beside).saturating_sub(huge));
    let memory_mb = memory(pod, room, config)?.saturating_add(huge);
    ceiling("processors", vcpus, "vm.max_vcpus", config.max_vcpus.into())?;
    ceiling("MiB of memory", memory_mb, "vm.max_memory_mb", config.max_memory_mb)?;
    if let Some(allowed) = allowed.filter(|allowed| memory_mb.saturating_add(beside) > *allowed) {
        let needed = memory_mb.saturating_add(beside);
        let least = needed.saturating_sub(limits.memory >> 20);
        let reason = format!(
            "its cgroup on the host allows {allowed} MiB, and a VM of {memory_mb} MiB needs {needed} with its VMM: an \
             overhead of at least {least} MiB (podFixed.memory of the RuntimeClass) would do"
        );
        return Err(Error::invalid("the pod's memory", reason));
    }
    // The ceiling on processors is a u32.
    Ok(Size { vcpus: u32::try_from(vcpus).unwrap_or(u32::MAX), memory_mb, hugepages: pod.hugepages })
}

/// The guest's memory but its huge pages.
fn memory(pod: &PodSpec, room: Option<u64>, config: &Vm) -> Result<u64> {
    let limit = pod.limits.memory;
    if let Some(wanted) = pod.annotations.memory_mb {
        let most = mebibytes(limit.saturating_add(pod.overhead.memory));
        within_declared(MEMORY_MB, wanted, most, limit)?;
        return Ok(wanted);
    }
    if limit == 0 {
        return Ok(config.default_memory_mb);
    }
    let least = mebibytes(limit).saturating_add(config.guest_overhead_mb);
    let whole = with_page_table(least);
    Ok(match room {
        // An overhead is the same for pods of all sizes, the page table is not: a large pod does without all of it.
        Some(room) => whole.min(room).max(least),
        None => whole.max(config.default_memory_mb),
    })
}

fn mebibytes(bytes: u64) -> u64 {
    bytes.div_ceil(1 << 20)
}

/// The guest's kernel keeps 64 bytes of each 4,096 to describe them.
fn with_page_table(usable_mb: u64) -> u64 {
    usable_mb.saturating_mul(64).div_ceil(63)
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
    use super::{super::annotations::Annotations, *};

    const CARRIED: Limits = Limits { cpu: true, memory: Some(1 << 40) };
    const NOT_CARRIED: Limits = Limits { cpu: false, memory: None };

    fn limits(millicpu: u64, memory_mb: u64) -> Declared {
        Declared { cpu_quota: millicpu * 100, cpu_period: 100_000, memory: memory_mb << 20 }
    }

    fn pod(limits: Declared, annotations: &Annotations) -> PodSpec {
        let overhead = Declared { memory: 128 << 20, ..Declared::default() };
        PodSpec { limits, overhead, annotations: annotations.clone(), ..PodSpec::default() }
    }

    fn size(limits: Declared, host: Limits, annotations: &Annotations) -> Result<(u32, u64)> {
        let size = of(&pod(limits, annotations), host, Accelerator::Kvm, &Vm::default())?;
        Ok((size.vcpus, size.memory_mb))
    }

    #[test]
    fn a_pod_without_limits_has_the_default() {
        assert_eq!(size(Declared::default(), CARRIED, &Annotations::default()).unwrap(), (1, 256));
    }

    #[test]
    fn limits_size_the_vm_and_processors_are_rounded_up() {
        let none = Annotations::default();
        assert_eq!(size(limits(1500, 440), CARRIED, &none).unwrap(), (2, 512));
        assert_eq!(size(limits(100, 32), CARRIED, &none).unwrap(), (1, 98));
        let mut odd = limits(0, 0);
        odd.memory = (125 << 20) + 1;
        assert_eq!(size(odd, CARRIED, &none).unwrap(), (1, 194));
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

    #[test]
    fn huge_pages_come_on_top() {
        let pod = PodSpec { hugepages: 8, ..pod(limits(0, 440), &Annotations::default()) };
        assert_eq!(of(&pod, CARRIED, Accelerator::Kvm, &Vm::default()).unwrap().memory_mb, 512 + 16);
    }

    #[test]
    fn a_cgroup_without_room_for_vm_and_vmm_is_refused_with_the_overhead_that_would_do() {
        let (pod, vm) = (pod(limits(0, 440), &Annotations::default()), Vm::default());
        let size = |mb: u64, accelerator| {
            let host = Limits { cpu: false, memory: Some(mb << 20) };
            of(&pod, host, accelerator, &vm).map(|size| size.memory_mb).map_err(|error| error.to_string())
        };
        let emulated = Accelerator::Tcg { code_buffer_mb: 64, tsc_khz: 1 };
        let least = 440 + vm.guest_overhead_mb;
        let beside = vm.host_overhead_mb;
        assert_eq!(size(1000, Accelerator::Kvm), Ok(512));
        assert_eq!(size(least + beside + 3, Accelerator::Kvm), Ok(least + 3));
        assert_eq!(size(least + beside + 64, emulated), Ok(least));
        let error = size(least + beside, emulated).unwrap_err();
        let overhead = format!("at least {} MiB", vm.guest_overhead_mb + beside + 64);
        assert!(error.contains(&overhead) && error.contains("podFixed"), "{error}");
    }
}
