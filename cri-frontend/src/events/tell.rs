//! Changes of records, and the events that tell of them, in one step.

use super::{Event, Hub, Kind};
use crate::{
    clock::unix_nanos,
    container::{Container, ContainerRecord, ContainerState, record::Stage},
    node::Node,
    sandbox::{Sandbox, SandboxRecord},
};

impl Node {
    /// Changes a container's record in memory. Who listens hears of it where it begins or ends to run.
    pub fn change_container<T>(
        &self,
        container: &Container,
        change: impl FnOnce(&mut ContainerRecord) -> T,
    ) -> T {
        let mut hub = self.events.lock();
        let before = container.record.with(ContainerRecord::stage);
        let outcome = container.record.update(change);
        let kinds = container.record.with(|after| container_kinds(before, after));
        if let (false, Ok(sandbox)) = (kinds.is_empty(), container.pod(self)) {
            self.publish(&mut hub, container.id.as_str(), &sandbox, kinds);
        }
        outcome
    }

    /// Changes a sandbox's record in memory. Who listens hears of its end.
    pub fn change_sandbox<T>(&self, sandbox: &Sandbox, change: impl FnOnce(&mut SandboxRecord) -> T) -> T {
        let mut hub = self.events.lock();
        let was_ready = sandbox.record.with(SandboxRecord::is_ready);
        let outcome = sandbox.record.update(change);
        if was_ready && !sandbox.record.with(SandboxRecord::is_ready) {
            self.publish(&mut hub, sandbox.id.as_str(), sandbox, &[Kind::Stopped]);
        }
        outcome
    }

    /// Tells of what was made or forgotten.
    pub fn tell(&self, subject: &str, sandbox: &Sandbox, kinds: &[Kind]) {
        self.publish(&mut self.events.lock(), subject, sandbox, kinds);
    }

    fn publish(&self, hub: &mut Hub, subject: &str, sandbox: &Sandbox, kinds: &[Kind]) {
        for &kind in kinds {
            hub.publish(Event {
                subject: subject.to_owned(),
                kind,
                at: unix_nanos(),
                sandbox: sandbox.record.get(),
                containers: self
                    .containers_of(sandbox)
                    .iter()
                    .map(|container| container.record.get())
                    .collect(),
            });
        }
    }
}

fn container_kinds(before: Stage, after: &ContainerRecord) -> &'static [Kind] {
    match (before, &after.state) {
        (Stage::Created, ContainerState::Running { .. }) => &[Kind::Started],
        (Stage::Created, ContainerState::Exited { started_at: 0, .. })
        | (Stage::Running, ContainerState::Exited { .. }) => &[Kind::Stopped],
        // Both while nobody looked.
        (Stage::Created, ContainerState::Exited { .. }) => &[Kind::Started, Kind::Stopped],
        _ => &[],
    }
}
