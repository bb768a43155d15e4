//! A container's limits, as libcgroups must get them.

use std::{collections::BTreeMap, fs, io};

use a3s_box_proto::ids::ContainerId;
use oci_spec::runtime::{LinuxHugepageLimit, LinuxResources};

use crate::{cgroup::Cgroup, error::Error};

/// The file that libcgroups leaves alone where it ought to write 0.
const SWAP: &str = "memory.swap.max";

/// Completes what libcgroups would do wrong, and refuses what the guest has not got.
pub fn adapt(resources: &mut LinuxResources) -> Result<(), Error> {
    forbid_swap(resources);
    let Some(limits) = resources.hugepage_limits().clone() else { return Ok(()) };
    let kept: Result<Vec<_>, _> = limits.into_iter().filter_map(|limit| keep(limit).transpose()).collect();
    resources.set_hugepage_limits(Some(kept?));
    Ok(())
}

/// Which file of `unified` the kernel refuses, where a container's limits could not be set: a cgroup that is made for the
/// purpose tells.
pub fn refused(id: &ContainerId, resources: &LinuxResources) -> Option<Error> {
    let files: BTreeMap<_, _> = resources.unified().iter().flatten().collect();
    if files.is_empty() {
        return None;
    }
    let trial = Cgroup::trial(id).inspect_err(|error| tracing::warn!("{error}")).ok()?;
    let refused = files
        .into_iter()
        .find_map(|(file, value)| Some(refusal(id, file, value, &trial.write(file, value).err()?)));
    if let Err(error) = trial.remove() {
        tracing::warn!("{error}");
    }
    refused
}

fn refusal(id: &ContainerId, file: &str, value: &str, error: &io::Error) -> Error {
    let why = match error.kind() {
        io::ErrorKind::NotFound => "the guest's kernel has no such file".to_owned(),
        _ => error.to_string(),
    };
    Error::invalid("unified", format!("container {id}: {file} = {value:?}: {why}"))
}

/// No more of memory and swap together than of memory alone.
fn forbid_swap(resources: &mut LinuxResources) {
    let Some(memory) = resources.memory() else { return };
    if memory.limit().is_some_and(|limit| limit > 0) && memory.limit() == memory.swap() {
        let unified = resources.unified_mut().get_or_insert_default();
        unified.entry(SWAP.to_owned()).or_insert_with(|| "0".to_owned());
    }
}

/// A limit of a size that this kernel has; of another only a limit of nothing is no contradiction.
fn keep(limit: LinuxHugepageLimit) -> Result<Option<LinuxHugepageLimit>, Error> {
    let size = limit.page_size();
    let asked = limit.limit();
    let kilobytes = kilobytes(size);
    let pages = kilobytes.and_then(|size| {
        let file = format!("/sys/kernel/mm/hugepages/hugepages-{size}kB/nr_hugepages");
        fs::read_to_string(file).ok()?.trim().parse::<u64>().ok()
    });
    let pool = kilobytes.zip(pages).map(|(size, pages)| size.saturating_mul(1024).saturating_mul(pages));
    match (u64::try_from(asked).unwrap_or(0), pool) {
        (0, None) => Ok(None),
        (asked, Some(pool)) if asked <= pool => Ok(Some(limit)),
        (asked, pool) => {
            let pool = pool.unwrap_or(0);
            Err(Error::invalid("hugepage limit", format!("{asked} bytes of {size}: the guest has {pool}")))
        }
    }
}

/// `2MB` and `1GB`, as cgroups write sizes.
fn kilobytes(size: &str) -> Option<u64> {
    let units = [("KB", 1), ("MB", 1024), ("GB", 1024 * 1024)];
    units
        .into_iter()
        .find_map(|(unit, factor)| size.strip_suffix(unit)?.parse::<u64>().ok()?.checked_mul(factor))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn adapted(resources: serde_json::Value) -> Result<LinuxResources, String> {
        let mut resources = serde_json::from_value(resources).unwrap();
        adapt(&mut resources).map_err(|error| error.to_string())?;
        Ok(resources)
    }

    #[test]
    fn a_container_without_a_word_on_swap_gets_none() {
        let swap = |memory| {
            let adapted = adapted(json!({"memory": memory})).unwrap();
            adapted.unified().as_ref().and_then(|unified| unified.get(SWAP).cloned())
        };
        assert_eq!(swap(json!({"limit": 1024, "swap": 1024})).as_deref(), Some("0"));
        for other in [json!({"limit": 1024, "swap": 2048}), json!({"limit": -1, "swap": -1}), json!({})] {
            assert_eq!(swap(other.clone()), None, "{other}");
        }
    }

    #[test]
    fn a_refusal_names_file_value_and_cause() {
        let error =
            |kind: io::Error| refusal(&"c1".parse().unwrap(), "memory.high", "much", &kind).to_string();
        let text = error(io::Error::from_raw_os_error(libc::EINVAL));
        assert_eq!(
            text,
            "invalid unified: container c1: memory.high = \"much\": Invalid argument (os error 22)"
        );
        assert!(error(io::ErrorKind::NotFound.into()).ends_with("no such file"));
    }

    #[test]
    fn huge_pages_that_the_guest_lacks_are_refused_by_name() {
        let limit =
            |size: &str, limit: i64| adapted(json!({"hugepageLimits": [{"pageSize": size, "limit": limit}]}));
        let error = limit("16GB", 16 << 30).unwrap_err();
        assert!(error.contains("16GB") && error.contains("the guest has 0"), "{error}");
        assert_eq!(*limit("16GB", 0).unwrap().hugepage_limits(), Some(Vec::new()));
        assert_eq!((kilobytes("2MB"), kilobytes("1GB"), kilobytes("2M")), (Some(2048), Some(1 << 20), None));
    }
}
