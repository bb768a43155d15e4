//! Resources: the container's cgroup in the guest.

use std::{collections::HashMap, ops::RangeInclusive};

use a3s_box_proto::{
    cri::{ContainerConfig, LinuxContainerResources, PodSandboxConfig},
    id_set::IdSet,
    ports::HUGEPAGE_BYTES,
};
use oci_spec::runtime::{LinuxCpu, LinuxHugepageLimit, LinuxMemory, LinuxPids, LinuxResources};

use crate::{
    Input, check, devices,
    error::{SpecError, invalid, unsupported},
};

/// What our annotations begin with.
pub(crate) const PREFIX: &str = "a3s.box/";
/// The pod's limit of processes a container.
const PIDS_ANNOTATION: &str = "a3s.box/pids-limit";
const PIDS_KEY: &str = "pids.max";
/// Controllers whose files mean the same in the guest as on the host.
const UNIFIED: [&str; 3] = ["cpu.", "memory.", "pids."];
/// The guest's size of huge pages, as CRI writes it.
const HUGEPAGE: &str = "2MB";
const OTHER_HUGEPAGES: &str = "the guest's huge pages are of 2MB";
/// What Linux takes for a period of `cpu.max`, in microseconds, and for the least quota.
const CPU_PERIOD: RangeInclusive<i64> = 1_000..=1_000_000;
const LEAST_CPU_QUOTA: i64 = 1_000;
/// Longer than any value of a cgroup file that a request could set.
const MAX_UNIFIED: usize = 4096;

/// The limits of a container.
pub(crate) fn resources(input: &Input<'_>, privileged: bool) -> Result<LinuxResources, SpecError> {
    let none = LinuxContainerResources::default();
    let asked = of_container(input.container).unwrap_or(&none);
    let mut resources = LinuxResources::default();
    resources
        .set_cpu(Some(cpu(asked)?))
        .set_memory(Some(memory(asked)?))
        .set_hugepage_limits(Some(hugepages(input, asked)?))
        .set_pids(Some(pids(input, asked)?))
        .set_unified(Some(unified(asked)?))
        .set_devices(Some(devices::rules(input, privileged)?));
    Ok(resources)
}

/// How gladly the kernel kills the container when memory is short.
pub(crate) fn oom_score_adj(container: &ContainerConfig) -> Result<Option<i32>, SpecError> {
    let Some(asked) = of_container(container) else { return Ok(None) };
    let score = asked.oom_score_adj;
    if !(-1000..=1000).contains(&score) {
        return Err(invalid("oom_score_adj", format!("{score} is not from -1000 to 1000")));
    }
    check::number("oom_score_adj", score, "from -1000 to 1000").map(Some)
}

fn of_container(container: &ContainerConfig) -> Option<&LinuxContainerResources> {
    container.linux.as_ref()?.resources.as_ref()
}

/// 0 is how protobuf says nothing.
fn given(value: i64) -> Option<i64> {
    (value != 0).then_some(value)
}

fn positive(field: &str, value: i64) -> Result<Option<u64>, SpecError> {
    given(value).map(|value| check::number(field, value, "a positive number")).transpose()
}

fn cpu(asked: &LinuxContainerResources) -> Result<LinuxCpu, SpecError> {
    let quota = given(asked.cpu_quota);
    if quota.is_some_and(|quota| quota != -1 && quota < LEAST_CPU_QUOTA) {
        let reason = format!("{} is neither -1 nor at least {LEAST_CPU_QUOTA} microseconds", asked.cpu_quota);
        return Err(invalid("cpu_quota", reason));
    }
    if given(asked.cpu_period).is_some_and(|period| !CPU_PERIOD.contains(&period)) {
        let (least, most) = (CPU_PERIOD.start(), CPU_PERIOD.end());
        let reason = format!("{} is not from {least} to {most} microseconds", asked.cpu_period);
        return Err(invalid("cpu_period", reason));
    }
    let mut cpu = LinuxCpu::default();
    // The two cpusets name processors and nodes of the host: the shim takes them for the pod's cgroup there.
    cpu.set_shares(positive("cpu_shares", asked.cpu_shares)?)
        .set_period(positive("cpu_period", asked.cpu_period)?)
        .set_quota(quota)
        .set_cpus(ids("cpuset_cpus", &asked.cpuset_cpus)?)
        .set_mems(ids("cpuset_mems", &asked.cpuset_mems)?);
    Ok(cpu)
}

fn ids(field: &str, text: &str) -> Result<Option<String>, SpecError> {
    let ids: IdSet = text.parse().map_err(|error| invalid(field, format!("{error}")))?;
    Ok((!ids.is_empty()).then(|| ids.to_string()))
}

/// Huge pages come from the pod's own pool, which is reserved when its VM boots.
fn hugepages(
    input: &Input<'_>,
    asked: &LinuxContainerResources,
) -> Result<Vec<LinuxHugepageLimit>, SpecError> {
    let pool = hugepage_pool(input.sandbox)?;
    let mut limits = Vec::new();
    for wish in &asked.hugepage_limits {
        let field = || format!("hugepage_limits[{}]", check::shown(&wish.page_size));
        match wish.page_size.as_str() {
            HUGEPAGE if wish.limit > pool => {
                let reason = format!(
                    "{} bytes are more than the pod's pool of {pool}, which is reserved when its VM boots, from the \
                     hugepage_limits of the pod sandbox's own resources",
                    wish.limit
                );
                return Err(unsupported(field(), reason));
            }
            HUGEPAGE => {
                let limit = i64::try_from(wish.limit).map_err(|_| invalid(field(), "it is no limit"))?;
                let mut entry = LinuxHugepageLimit::default();
                entry.set_page_size(HUGEPAGE.to_owned()).set_limit(limit);
                limits.push(entry);
            }
            _ if wish.limit > 0 => return Err(unsupported(field(), OTHER_HUGEPAGES)),
            // kubelet names every size that the host has.
            _ => {}
        }
    }
    Ok(limits)
}

/// Bytes of huge pages that a pod asks for.
///
/// # Errors
/// The guest has none of that size, or they are no whole number.
pub(crate) fn hugepage_pool(sandbox: &PodSandboxConfig) -> Result<u64, SpecError> {
    let resources = sandbox.linux.as_ref().and_then(|linux| linux.resources.as_ref());
    let mut pool = 0;
    for wish in
        resources.iter().flat_map(|resources| &resources.hugepage_limits).filter(|wish| wish.limit > 0)
    {
        let field = format!("resources.hugepage_limits[{}]", check::shown(&wish.page_size));
        if wish.page_size != HUGEPAGE {
            return Err(unsupported(field, OTHER_HUGEPAGES));
        }
        if !wish.limit.is_multiple_of(HUGEPAGE_BYTES) {
            return Err(invalid(field, format!("{} bytes are no whole number of pages", wish.limit)));
        }
        pool = wish.limit;
    }
    Ok(pool)
}

fn memory(asked: &LinuxContainerResources) -> Result<LinuxMemory, SpecError> {
    let limit = given(asked.memory_limit_in_bytes);
    let swap = given(asked.memory_swap_limit_in_bytes);
    for (field, value) in [("memory_limit_in_bytes", limit), ("memory_swap_limit_in_bytes", swap)] {
        if let Some(value) = value.filter(|value| *value < -1) {
            return Err(invalid(field, format!("{value} is neither positive nor -1")));
        }
    }
    if limit.is_none() && swap.is_some_and(|swap| swap != -1) {
        return Err(invalid("memory_swap_limit_in_bytes", "it is given without memory_limit_in_bytes"));
    }
    if let (Some(limit), Some(swap)) = (limit, swap)
        && swap != -1
        && (limit == -1 || swap < limit)
    {
        let reason = format!("memory and swap together, {swap}, are less than memory alone, {limit}");
        return Err(invalid("memory_swap_limit_in_bytes", reason));
    }
    let mut memory = LinuxMemory::default();
    // Without a word on swap there is none, as in containerd.
    memory.set_limit(limit).set_swap(swap.or(limit));
    Ok(memory)
}

/// The container's own word, else the pod's, else the node's.
fn pids(input: &Input<'_>, asked: &LinuxContainerResources) -> Result<LinuxPids, SpecError> {
    let annotation = input.sandbox.annotations.get(PIDS_ANNOTATION);
    let unified = format!("unified[{PIDS_KEY}]");
    let (field, limit) = match (asked.unified.get(PIDS_KEY), annotation) {
        (Some(text), _) => (unified.as_str(), parse_pids(&unified, text)?),
        (None, Some(text)) => (PIDS_ANNOTATION, parse_pids(PIDS_ANNOTATION, text)?),
        (None, None) => ("pids.default", input.pids.default),
    };
    let most = input.pids.max;
    if limit > most {
        return Err(invalid(field, format!("{limit} is above the most that this node allows, {most}")));
    }
    let mut pids = LinuxPids::default();
    pids.set_limit(i64::try_from(limit).map_err(|_| invalid(field, format!("{limit} is no limit")))?);
    Ok(pids)
}

fn parse_pids(field: &str, text: &str) -> Result<u64, SpecError> {
    let limit = text.trim().parse().ok().filter(|limit| *limit >= 1);
    limit.ok_or_else(|| invalid(field, format!("{} is not a number of at least 1", check::shown(text))))
}

fn unified(asked: &LinuxContainerResources) -> Result<HashMap<String, String>, SpecError> {
    let mut unified = HashMap::new();
    for (key, value) in asked.unified.iter().filter(|(key, _)| *key != PIDS_KEY) {
        let field = format!("unified[{}]", check::shown(key));
        // The key becomes a file's name.
        if key.contains('/') || !UNIFIED.iter().any(|controller| key.starts_with(controller)) {
            return Err(unsupported(field, format!("files of {} can be set", UNIFIED.join(", "))));
        }
        check::text(&field, key, MAX_UNIFIED)?;
        check::text(&field, value, MAX_UNIFIED)?;
        unified.insert(key.clone(), value.clone());
    }
    Ok(unified)
}
