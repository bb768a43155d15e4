//! What a shim says of containers, against what the records say.

use std::sync::Arc;

use a3s_box_proto::shim as control;
use tracing::info;

use super::{
    Container, ContainerRecord, Exit, persist_all,
    record::{User, exit_code},
};
use crate::{clock::unix_nanos, error::Error, node::Node};

/// Takes over the shim's truth about these containers: all of it in memory, and on disk too where something changed.
pub async fn observe(
    node: &Node,
    containers: &[Arc<Container>],
    state: &control::StateResponse,
) -> Result<(), Error> {
    let mut changed = Vec::new();
    for container in containers {
        let told = state.containers.iter().find(|told| told.id == container.id.as_str());
        let before = container.record.with(|record| record.state.clone());
        if !node.change_container(container, |record| apply(record, told)) {
            continue;
        }
        let after = container.record.with(|record| record.state.clone());
        if after != before {
            info!(container = %container.id, state = ?after, "container changed");
        }
        changed.push(container.clone());
    }
    persist_all(node, &changed).await
}

/// Changes a record to what its shim says; true if that is news.
fn apply(record: &mut ContainerRecord, told: Option<&control::Container>) -> bool {
    let before = (record.state.clone(), record.user.clone());
    let Some(told) = told else {
        // The shim forgets a container only when it is removed.
        if record.state.is_running() {
            record.state.exit(Exit::unknown(unix_nanos()));
        }
        return before.0 != record.state;
    };
    if told.status != control::ContainerStatus::CONTAINER_UNSPECIFIED.into() {
        record.user = Some(User {
            uid: told.uid,
            gid: told.gid,
            supplemental_groups: told.supplemental_groups.clone(),
        });
    }
    if told.started_at_unix_nanos != 0 && !record.state.is_running() {
        record.state.run(told.started_at_unix_nanos);
    }
    if told.status == control::ContainerStatus::CONTAINER_EXITED.into() {
        record.state.exit(exit(told));
    }
    before != (record.state.clone(), record.user.clone())
}

fn exit(told: &control::Container) -> Exit {
    let exit = told.exit.clone().unwrap_or_default();
    Exit {
        code: exit_code(exit.code),
        finished_at: if exit.exited_at_unix_nanos == 0 { unix_nanos() } else { exit.exited_at_unix_nanos },
        reason: exit.reason,
        message: exit.message,
    }
}

#[cfg(test)]
mod tests {
    use a3s_box_proto::cri::ContainerConfig;

    use super::{
        super::record::{ContainerState, ImageUse, RunAs, StopSignal},
        *,
    };

    fn record(state: ContainerState) -> ContainerRecord {
        ContainerRecord {
            id: "c".parse().unwrap(),
            sandbox: "s".parse().unwrap(),
            config: Arc::new(ContainerConfig::default()),
            image: ImageUse { id: String::new(), name: String::new(), reference: String::new() },
            image_volumes: Default::default(),
            created_at: 1,
            log_path: None,
            run_as: RunAs {
                user: String::new(),
                group: String::new(),
                supplemental_groups: Vec::new(),
                strict: false,
            },
            stop_signal: StopSignal { number: 15 },
            user: None,
            state,
        }
    }

    fn told(status: control::ContainerStatus) -> control::Container {
        control::Container {
            id: "c".into(),
            status: status.into(),
            started_at_unix_nanos: 5,
            uid: 1000,
            ..Default::default()
        }
    }

    #[test]
    fn an_exit_while_nobody_looked_is_taken_over_with_its_time() {
        let mut known = record(ContainerState::Running { started_at: 5 });
        let exit = control::Exit {
            code: 137,
            exited_at_unix_nanos: 9,
            reason: "OOMKilled".into(),
            ..Default::default()
        };
        let told = control::Container {
            exit: Some(exit).into(),
            ..told(control::ContainerStatus::CONTAINER_EXITED)
        };
        assert!(apply(&mut known, Some(&told)));
        let ContainerState::Exited { started_at: 5, exit } = &known.state else {
            panic!("{:?}", known.state)
        };
        assert_eq!((exit.code, exit.finished_at, exit.reason.as_str()), (137, 9, "OOMKilled"));
        assert!(!apply(&mut known, Some(&told)), "the same again is no news");
    }

    #[test]
    fn a_start_whose_frontend_was_killed_is_taken_over() {
        let mut known = record(ContainerState::Created);
        assert!(apply(&mut known, Some(&told(control::ContainerStatus::CONTAINER_RUNNING))));
        assert_eq!(known.state, ContainerState::Running { started_at: 5 });
        assert_eq!(known.user.unwrap().uid, 1000);
    }

    #[test]
    fn what_the_shim_does_not_know_is_unknown_only_if_it_ran() {
        let mut created = record(ContainerState::Created);
        assert!(!apply(&mut created, None));
        let mut running = record(ContainerState::Running { started_at: 5 });
        assert!(apply(&mut running, None));
        let ContainerState::Exited { exit, .. } = running.state else { panic!("{:?}", running.state) };
        assert_eq!((exit.code, exit.reason.as_str()), (255, "ContainerStatusUnknown"));
    }

    #[test]
    fn a_guests_exit_code_is_a_byte() {
        let exit_told = control::Exit { code: u32::MAX, ..Default::default() };
        let told = control::Container { exit: Some(exit_told).into(), ..Default::default() };
        assert_eq!(exit(&told).code, 255);
    }
}
