//! What the guest says is not trusted: bounds, ids and counts are checked before anything is done with them.

use std::time::{Duration, UNIX_EPOCH};

use a3s_box_proto::{
    agent::{ContainerStats, IoStats, StatsResponse, User, WaitResponse},
    ids::ContainerId,
};

use super::{AgentError, GuestExit};

/// The most interfaces that statistics are taken of.
const MOST_INTERFACES: usize = 16;
/// The most block devices, page sizes and limits of one container that statistics are taken of: more than there are.
const MOST_ROWS: usize = 32;
/// The most groups of a user: each stands in the container's record and in every status of it.
const MOST_GROUPS: usize = 4096;
/// The longest name of an interface (`IFNAMSIZ` without its NUL), and of a page size.
const LONGEST_NAME: usize = 15;
/// The longest name of a limit in `/proc/PID/limits`.
const LONGEST_LIMIT: usize = 26;

pub(super) fn exit(answer: &WaitResponse) -> Result<GuestExit, AgentError> {
    let nonsense = |what| AgentError::Nonsense { call: "wait", what };
    let code = u8::try_from(answer.exit_code).map_err(|_| nonsense("an exit code beyond 255"))?;
    let nanos =
        u64::try_from(answer.exited_at_unix_nanos).map_err(|_| nonsense("a time before the epoch"))?;
    Ok(GuestExit { code, at: UNIX_EPOCH + Duration::from_nanos(nanos), oom_killed: answer.oom_killed })
}

/// Nothing but numbers is kept: unknown fields would be passed on, of any size.
pub(super) fn user(answer: User) -> Result<User, AgentError> {
    let User { uid, gid, supplemental_groups, .. } = answer;
    if supplemental_groups.len() > MOST_GROUPS {
        return Err(AgentError::Nonsense {
            call: "create_container",
            what: "a user in more than 4096 groups",
        });
    }
    Ok(User { uid, gid, supplemental_groups, ..User::default() })
}

/// Keeps the figures of containers that we know, each once, and a bounded number of interfaces.
pub(super) fn stats(mut answer: StatsResponse, known: &[ContainerId]) -> StatsResponse {
    let mut left: Vec<&str> = known.iter().map(ContainerId::as_str).collect();
    answer.containers.retain(|container| {
        let found = left.iter().position(|id| *id == container.container_id);
        found.map(|index| left.swap_remove(index)).is_some()
    });
    answer.containers.iter_mut().for_each(bound);
    answer.io.as_mut().map(bound_io);
    answer.interfaces.retain(|interface| is_name(&interface.name, LONGEST_NAME));
    answer.interfaces.truncate(MOST_INTERFACES);
    // Unknown fields would be passed on, of any size.
    answer.special_fields.mut_unknown_fields().clear();
    answer
}

fn bound(container: &mut ContainerStats) {
    container.io.as_mut().map(bound_io);
    container.hugepages.retain(|pages| is_name(&pages.page_size, LONGEST_NAME));
    container.hugepages.truncate(MOST_ROWS);
    if let Some(details) = container.details.as_mut() {
        details.soft_limits.retain(|limit| is_name(&limit.name, LONGEST_LIMIT));
        details.soft_limits.truncate(MOST_ROWS);
    }
}

fn bound_io(io: &mut IoStats) {
    io.devices.truncate(MOST_ROWS);
}

/// What names become part of: labels of metrics, fields of answers.
fn is_name(text: &str, longest: usize) -> bool {
    text.len() <= longest && text.chars().all(|c| c.is_ascii_graphic())
}

#[cfg(test)]
mod tests {
    use a3s_box_proto::agent::{ContainerDetails, DeviceIo, InterfaceStats, SoftLimit};

    use super::*;

    #[test]
    fn an_impossible_exit_is_refused() {
        assert!(exit(&WaitResponse { exit_code: 256, ..Default::default() }).is_err());
        assert!(exit(&WaitResponse { exited_at_unix_nanos: -1, ..Default::default() }).is_err());
        assert_eq!(exit(&WaitResponse { exit_code: 137, ..Default::default() }).unwrap().code, 137);
    }

    #[test]
    fn a_user_has_a_bounded_number_of_groups() {
        let of = |groups| User { uid: 7, supplemental_groups: vec![1; groups], ..Default::default() };
        assert_eq!(user(of(MOST_GROUPS)).unwrap().supplemental_groups.len(), MOST_GROUPS);
        assert!(user(of(MOST_GROUPS + 1)).is_err());
    }

    #[test]
    fn only_our_containers_are_counted_and_each_once() {
        let stats_of = |id: &str| ContainerStats { container_id: id.into(), ..Default::default() };
        let answer = StatsResponse {
            containers: ["a", "b", "a", "../x"].map(stats_of).into(),
            interfaces: vec![
                InterfaceStats { name: "x".repeat(99), ..Default::default() },
                InterfaceStats { name: "eth0".into(), ..Default::default() },
            ],
            ..Default::default()
        };
        let checked = stats(answer, &["a".parse().unwrap(), "c".parse().unwrap()]);
        assert_eq!(checked.containers.len(), 1);
        assert_eq!(checked.interfaces.len(), 1);
    }

    #[test]
    fn no_table_of_a_container_is_endless() {
        let soft_limits =
            ["nofile", "no\nfile"].map(|name| SoftLimit { name: name.into(), ..Default::default() });
        let container = ContainerStats {
            container_id: "a".into(),
            io: Some(IoStats { devices: vec![DeviceIo::default(); 9999], ..Default::default() }).into(),
            details: Some(ContainerDetails { soft_limits: soft_limits.into(), ..Default::default() }).into(),
            ..Default::default()
        };
        let answer = StatsResponse { containers: vec![container], ..Default::default() };
        let checked = stats(answer, &["a".parse().unwrap()]);
        assert_eq!(checked.containers[0].io.devices.len(), MOST_ROWS);
        assert_eq!(checked.containers[0].details.soft_limits.len(), 1);
    }
}
