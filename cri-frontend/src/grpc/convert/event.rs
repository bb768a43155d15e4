//! What has happened, for GetContainerEvents.

use a3s_box_proto::cri;

use super::{container, sandbox};
use crate::events::{Event, Kind};

/// An event with the whole pod's status as it was then.
pub fn event(event: &Event) -> cri::ContainerEventResponse {
    let kind = match event.kind {
        Kind::Created => cri::ContainerEventType::ContainerCreatedEvent,
        Kind::Started => cri::ContainerEventType::ContainerStartedEvent,
        Kind::Stopped => cri::ContainerEventType::ContainerStoppedEvent,
        Kind::Deleted => cri::ContainerEventType::ContainerDeletedEvent,
    };
    cri::ContainerEventResponse {
        container_id: event.subject.clone(),
        container_event_type: kind.into(),
        created_at: event.at,
        pod_sandbox_status: Some(sandbox::of_record(&event.sandbox)),
        containers_statuses: event.containers.iter().map(container::of_record).collect(),
    }
}
