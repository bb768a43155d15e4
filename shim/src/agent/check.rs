//! What the guest says is not trusted: bounds, ids and counts are checked before anything is done with them.

use std::time::{Duration, UNIX_EPOCH};

use a3s_box_proto::{
    agent::{StatsResponse, WaitResponse},
    ids::ContainerId,
};

use super::{AgentError, GuestExit};

/// The most interfaces that statistics are taken of.
const MOST_INTERFACES: usize = 16;
/// The longest name of an interface (`IFNAMSIZ` without its NUL).
const LONGEST_NAME: usize = 15;

pub(super) fn exit(answer: &WaitResponse) -> Result<GuestExit, AgentError> {
    let nonsense = |what| AgentError::Nonsense { call: "wait", what };
    let code = u8::try_from(answer.exit_code).map_err(|_| nonsense("an exit code beyond 255"))?;
    let nanos =
        u64::try_from(answer.exited_at_unix_nanos).map_err(|_| nonsense("a time before the epoch"))?;
    Ok(GuestExit { code, at: UNIX_EPOCH + Duration::from_nanos(nanos), oom_killed: answer.oom_killed })
}

/// Keeps the figures of containers that we know, each once, and a bounded number of interfaces.
pub(super) fn stats(mut answer: StatsResponse, known: &[ContainerId]) -> StatsResponse {
    let mut left: Vec<&str> = known.iter().map(ContainerId::as_str).collect();
    answer.containers.retain(|container| {
        let found = left.iter().position(|id| *id == container.container_id);
        found.map(|index| left.swap_remove(index)).is_some()
    });
    answer.interfaces.retain(|interface| {
        interface.name.len() <= LONGEST_NAME && interface.name.chars().all(|c| c.is_ascii_graphic())
    });
    answer.interfaces.truncate(MOST_INTERFACES);
    // Unknown fields would be passed on, of any size.
    answer.special_fields.mut_unknown_fields().clear();
    answer
}

#[cfg(test)]
mod tests {
    use a3s_box_proto::agent::{ContainerStats, InterfaceStats};

    use super::*;

    #[test]
    fn an_impossible_exit_is_refused() {
        assert!(exit(&WaitResponse { exit_code: 256, ..Default::default() }).is_err());
        assert!(exit(&WaitResponse { exited_at_unix_nanos: -1, ..Default::default() }).is_err());
        assert_eq!(exit(&WaitResponse { exit_code: 137, ..Default::default() }).unwrap().code, 137);
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
}
