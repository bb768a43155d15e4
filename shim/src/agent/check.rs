//! What the guest says is not trusted: bounds, ids and counts are checked before anything is done with them.

use std::{
    collections::HashSet,
    hash::Hash,
    time::{Duration, UNIX_EPOCH},
};

use a3s_box_proto::{
    agent::{ContainerStats, CpuStats, IoStats, MemoryStats, Pressure, StatsResponse, User, WaitResponse},
    ids::ContainerId,
};
use protobuf::{Message, MessageField};

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

/// Keeps the figures of containers that we know, and bounded tables. Each row once: two with one key would be two metrics
/// with the same labels, for which kubelet refuses to show any of the node's.
pub(super) fn stats(mut answer: StatsResponse, known: &[ContainerId]) -> StatsResponse {
    let is_known = |id: &str| known.iter().any(|known| known.as_str() == id);
    keep(&mut answer.containers, known.len(), |one| {
        is_known(&one.container_id).then(|| one.container_id.clone())
    });
    answer.containers.iter_mut().for_each(bound);
    bound_figures(&mut answer.cpu, &mut answer.memory, &mut answer.io);
    keep(&mut answer.interfaces, MOST_INTERFACES, |one| name(&one.name, LONGEST_NAME));
    forget_unknown(&mut answer);
    answer
}

fn bound(container: &mut ContainerStats) {
    bound_figures(&mut container.cpu, &mut container.memory, &mut container.io);
    keep(&mut container.hugepages, MOST_ROWS, |one| name(&one.page_size, LONGEST_NAME));
    if let Some(details) = container.details.as_mut() {
        keep(&mut details.soft_limits, MOST_ROWS, |one| name(&one.name, LONGEST_LIMIT));
        forget_unknown(details);
    }
}

fn bound_figures(
    cpu: &mut MessageField<CpuStats>,
    memory: &mut MessageField<MemoryStats>,
    io: &mut MessageField<IoStats>,
) {
    if let Some(cpu) = cpu.as_mut() {
        bound_pressure(&mut cpu.pressure);
        forget_unknown(cpu);
    }
    if let Some(memory) = memory.as_mut() {
        bound_pressure(&mut memory.pressure);
        forget_unknown(memory);
    }
    if let Some(io) = io.as_mut() {
        keep(&mut io.devices, MOST_ROWS, |device| Some((device.major, device.minor)));
        bound_pressure(&mut io.pressure);
        forget_unknown(io);
    }
}

fn bound_pressure(pressure: &mut MessageField<Pressure>) {
    let Some(pressure) = pressure.as_mut() else { return };
    pressure.some.as_mut().map(forget_unknown);
    pressure.full.as_mut().map(forget_unknown);
    forget_unknown(pressure);
}

/// Keeps the first row of each key, of so many keys at most, and none without a key.
fn keep<Row: Message, Key: Eq + Hash>(rows: &mut Vec<Row>, most: usize, key: impl Fn(&Row) -> Option<Key>) {
    let mut seen = HashSet::new();
    rows.retain(|row| seen.len() < most && key(row).is_some_and(|key| seen.insert(key)));
    rows.iter_mut().for_each(forget_unknown);
}

/// Fields that we do not know would be passed on, of any size.
fn forget_unknown(message: &mut impl Message) {
    message.mut_special_fields().mut_unknown_fields().clear();
}

/// What names become part of: labels of metrics, fields of answers.
fn name(text: &str, longest: usize) -> Option<String> {
    let is_name = (1..=longest).contains(&text.len()) && text.chars().all(|c| c.is_ascii_graphic());
    is_name.then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use a3s_box_proto::agent::{ContainerDetails, DeviceIo, HugepageStats, InterfaceStats, SoftLimit, Stall};

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
    fn only_our_containers_are_counted() {
        let stats_of = |id: &str| ContainerStats { container_id: id.into(), ..Default::default() };
        let containers = ["../x", "b", "a"].map(stats_of).into();
        let answer = StatsResponse { containers, ..Default::default() };
        let checked = stats(answer, &["a".parse().unwrap()]);
        assert_eq!(checked.containers.len(), 1);
        assert_eq!(checked.containers[0].container_id, "a");
    }

    /// An answer whose tables have these rows: so many devices, and twice each of the names.
    fn answer(devices: u32, names: &[&str]) -> StatsResponse {
        let names = || names.iter().chain(names).map(|name| (*name).to_owned());
        let soft_limits = names().map(|name| SoftLimit { name, ..Default::default() }).collect();
        let hugepages = names().map(|page_size| HugepageStats { page_size, ..Default::default() }).collect();
        let interfaces = names().map(|name| InterfaceStats { name, ..Default::default() }).collect();
        let numbers = (0..devices).chain(0..devices);
        let devices = numbers.map(|minor| DeviceIo { minor, ..Default::default() }).collect();
        let container = ContainerStats {
            container_id: "a".into(),
            io: Some(IoStats { devices, ..Default::default() }).into(),
            details: Some(ContainerDetails { soft_limits, ..Default::default() }).into(),
            hugepages,
            ..Default::default()
        };
        let containers = vec![container.clone(), container];
        StatsResponse { containers, interfaces, ..Default::default() }
    }

    #[test]
    fn each_row_is_told_once_and_no_table_is_endless() {
        let long = "x".repeat(99);
        let checked = stats(answer(3, &["eth0", "", "no\nname", &long]), &["a".parse().unwrap()]);
        assert_eq!((checked.containers.len(), checked.interfaces.len()), (1, 1));
        let container = &checked.containers[0];
        let rows =
            (container.io.devices.len(), container.hugepages.len(), container.details.soft_limits.len());
        assert_eq!(rows, (3, 1, 1));
        let names: Vec<_> = (0..99).map(|number| format!("n{number}")).collect();
        let names: Vec<_> = names.iter().map(String::as_str).collect();
        let checked = stats(answer(99, &names), &["a".parse().unwrap()]);
        assert_eq!(checked.interfaces.len(), MOST_INTERFACES);
        let container = &checked.containers[0];
        let rows =
            (container.io.devices.len(), container.hugepages.len(), container.details.soft_limits.len());
        assert_eq!(rows, (MOST_ROWS, MOST_ROWS, MOST_ROWS));
    }

    #[test]
    fn nothing_unknown_is_passed_on() {
        fn stuffed<M: Message>(mut message: M) -> M {
            message.mut_special_fields().mut_unknown_fields().add_length_delimited(99, vec![0; 1000]);
            message
        }
        let stall = || MessageField::some(stuffed(Stall::default()));
        let pressure = || {
            let (some, full) = (stall(), stall());
            MessageField::some(stuffed(Pressure { some, full, ..Default::default() }))
        };
        let cpu = MessageField::some(stuffed(CpuStats { pressure: pressure(), ..Default::default() }));
        let memory = MessageField::some(stuffed(MemoryStats { pressure: pressure(), ..Default::default() }));
        let devices = vec![stuffed(DeviceIo::default())];
        let io = MessageField::some(stuffed(IoStats { devices, pressure: pressure(), ..Default::default() }));
        let soft_limits = vec![stuffed(SoftLimit { name: "nofile".into(), ..Default::default() })];
        let hugepages = vec![stuffed(HugepageStats { page_size: "2MB".into(), ..Default::default() })];
        let container = stuffed(ContainerStats {
            container_id: "a".into(),
            cpu: cpu.clone(),
            memory: memory.clone(),
            io: io.clone(),
            hugepages,
            details: MessageField::some(stuffed(ContainerDetails { soft_limits, ..Default::default() })),
            ..Default::default()
        });
        let interfaces = vec![stuffed(InterfaceStats { name: "eth0".into(), ..Default::default() })];
        let containers = vec![container];
        let answer = stuffed(StatsResponse { containers, cpu, memory, io, interfaces, ..Default::default() });
        let checked = stats(answer, &["a".parse().unwrap()]);
        assert_eq!((checked.containers.len(), checked.interfaces.len()), (1, 1));
        assert!(checked.compute_size() < 200, "{} bytes", checked.compute_size());
    }
}
