//! Who started the shim. Our frontend asks for all that it wants to know; containerd has to be told some of it.

use std::{
    io,
    path::PathBuf,
    time::{Duration, SystemTime},
};

use a3s_box_proto::ids::ContainerId;
use containerd_shim_protos::{
    api::ForwardRequest,
    events::task::TaskOOM,
    shim::event::Envelope,
    shim_async::{Client, EventsClient},
    topics::TASK_OOM_EVENT_TOPIC,
};
use protobuf::{Message, MessageField, well_known_types::any::Any};
use tokio::time::timeout;
use tracing::warn;
use ttrpc::{asynchronous::transport::Socket, context};

use crate::sys::{namespace::HostNamespace, socket::connect};

/// Where containerd takes events: it puts this into the environment of the shims that it starts.
pub const EVENTS_VARIABLE: &str = "TTRPC_ADDRESS";
/// For containerd to take an event. It may be down: then it learns less.
const EVENT_BOUND: Duration = Duration::from_secs(2);

/// Who started the shim.
#[derive(Debug, Clone)]
pub enum Caller {
    /// Ours, which has the Control service.
    Frontend,
    /// containerd, which knows its own services only.
    Containerd(Containerd),
}

/// containerd.
#[derive(Debug, Clone)]
pub struct Containerd {
    events: PathBuf,
    namespace: String,
}

impl Caller {
    /// By the environment. `namespace` is containerd's, not one of the kernel's.
    pub fn of_this_process(namespace: &str) -> Self {
        match std::env::var_os(EVENTS_VARIABLE) {
            Some(events) if !events.is_empty() => {
                Self::Containerd(Containerd { events: events.into(), namespace: namespace.to_owned() })
            }
            _ => Self::Frontend,
        }
    }

    /// Whether it is containerd.
    pub fn is_containerd(&self) -> bool {
        matches!(self, Self::Containerd(_))
    }

    /// Tells that a container ran out of memory, before its exit is told: containerd gives that as its reason then.
    pub async fn out_of_memory(&self, host: &HostNamespace, container: &ContainerId) {
        let Self::Containerd(containerd) = self else { return };
        let told = timeout(EVENT_BOUND, containerd.out_of_memory(host, container)).await;
        if let Err(error) = told.map_err(io::Error::from).and_then(|published| published) {
            warn!(%container, %error, "containerd was not told that the container ran out of memory");
        }
    }
}

impl Containerd {
    async fn out_of_memory(&self, host: &HostNamespace, container: &ContainerId) -> io::Result<()> {
        let event = TaskOOM { container_id: container.to_string(), ..TaskOOM::default() };
        let event = Any {
            type_url: "containerd.events.TaskOOM".into(),
            value: event.write_to_bytes().map_err(io::Error::other)?,
            ..Any::default()
        };
        let envelope = Envelope {
            timestamp: MessageField::some(SystemTime::now().into()),
            namespace: self.namespace.clone(),
            topic: TASK_OOM_EVENT_TOPIC.to_owned(),
            event: MessageField::some(event),
            ..Envelope::default()
        };
        let request = ForwardRequest { envelope: MessageField::some(envelope), ..ForwardRequest::default() };
        let client = Client::new(Socket::new(connect(host, &self.events).await?));
        let forwarded = EventsClient::new(client).forward(context::Context::default(), &request).await;
        forwarded.map(drop).map_err(io::Error::other)
    }
}
