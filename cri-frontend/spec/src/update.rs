//! Limits that change: what an update leaves as it was, and what a status shows.

use a3s_box_proto::cri::LinuxContainerResources;

/// The limits after an update, of which each field that is 0 or empty changes nothing, as in containerd.
pub fn updated(
    current: &LinuxContainerResources,
    change: LinuxContainerResources,
) -> LinuxContainerResources {
    let number = |now: i64, wanted: i64| if wanted == 0 { now } else { wanted };
    let text = |now: &String, wanted: String| if wanted.is_empty() { now.clone() } else { wanted };
    let mut hugepage_limits = current.hugepage_limits.clone();
    for limit in change.hugepage_limits {
        hugepage_limits.retain(|known| known.page_size != limit.page_size);
        hugepage_limits.push(limit);
    }
    let mut unified = current.unified.clone();
    unified.extend(change.unified);
    LinuxContainerResources {
        cpu_period: number(current.cpu_period, change.cpu_period),
        cpu_quota: number(current.cpu_quota, change.cpu_quota),
        cpu_shares: number(current.cpu_shares, change.cpu_shares),
        memory_limit_in_bytes: number(current.memory_limit_in_bytes, change.memory_limit_in_bytes),
        // A new limit of memory alone allows no swap, whatever the old one did.
        memory_swap_limit_in_bytes: if change.memory_limit_in_bytes == 0 {
            number(current.memory_swap_limit_in_bytes, change.memory_swap_limit_in_bytes)
        } else {
            change.memory_swap_limit_in_bytes
        },
        // Fixed when the process begins.
        oom_score_adj: current.oom_score_adj,
        cpuset_cpus: text(&current.cpuset_cpus, change.cpuset_cpus),
        cpuset_mems: text(&current.cpuset_mems, change.cpuset_mems),
        hugepage_limits,
        unified,
    }
}

/// The limits as they are set: without a word on swap there is none.
pub fn applied(asked: &LinuxContainerResources) -> LinuxContainerResources {
    let mut applied = asked.clone();
    if applied.memory_swap_limit_in_bytes == 0 {
        applied.memory_swap_limit_in_bytes = applied.memory_limit_in_bytes;
    }
    applied
}

#[cfg(test)]
mod tests {
    use a3s_box_proto::cri::HugepageLimit;

    use super::*;

    fn pages(size: &str, limit: u64) -> HugepageLimit {
        HugepageLimit { page_size: size.into(), limit }
    }

    #[test]
    fn what_an_update_does_not_name_stays() {
        let current = LinuxContainerResources {
            cpu_period: 100_000,
            cpu_quota: 50_000,
            cpu_shares: 512,
            memory_limit_in_bytes: 64,
            memory_swap_limit_in_bytes: 128,
            oom_score_adj: 7,
            cpuset_cpus: "0-1".into(),
            cpuset_mems: "0".into(),
            hugepage_limits: vec![pages("2MB", 0), pages("1GB", 0)],
            unified: [("pids.max".into(), "9".into()), ("memory.low".into(), "1".into())].into(),
        };
        assert_eq!(updated(&current, LinuxContainerResources::default()), current);
        let change = LinuxContainerResources {
            cpu_quota: -1,
            cpuset_cpus: "1".into(),
            hugepage_limits: vec![pages("2MB", 2 << 20)],
            unified: [("pids.max".into(), "5".into())].into(),
            ..Default::default()
        };
        let after = updated(&current, change);
        assert_eq!((after.cpu_quota, after.cpu_period, after.cpu_shares), (-1, 100_000, 512));
        assert_eq!((after.cpuset_cpus.as_str(), after.cpuset_mems.as_str()), ("1", "0"));
        assert_eq!(after.hugepage_limits, [pages("1GB", 0), pages("2MB", 2 << 20)]);
        assert_eq!((after.unified["pids.max"].as_str(), after.unified.len()), ("5", 2));
        assert_eq!(after.oom_score_adj, 7);
    }

    #[test]
    fn a_new_limit_of_memory_takes_the_old_one_of_swap_along() {
        let current = LinuxContainerResources {
            memory_limit_in_bytes: 64,
            memory_swap_limit_in_bytes: 128,
            ..Default::default()
        };
        let change = LinuxContainerResources { memory_limit_in_bytes: 256, ..Default::default() };
        let after = applied(&updated(&current, change));
        assert_eq!((after.memory_limit_in_bytes, after.memory_swap_limit_in_bytes), (256, 256));
    }
}
