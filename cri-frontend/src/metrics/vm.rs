//! What a pod costs the host: VMM, helpers and shim, and with them all that its guest uses.

use super::{
    Kind::{Counter, Gauge},
    Metric, Read, SECOND_USEC, one,
};

pub(super) const METRICS: &[Metric] = &[
    Metric {
        name: "a3s_box_pod_host_cpu_seconds_total",
        help: "The host's processor time that the whole pod took, in whole seconds.",
        kind: Counter,
        labels: &[],
        read: Read::Pod(|sample| one(sample.host.cpu_usec / SECOND_USEC)),
    },
    Metric {
        name: "a3s_box_pod_host_memory_bytes",
        help: "The host's memory that the whole pod has.",
        kind: Gauge,
        labels: &[],
        read: Read::Pod(|sample| one(sample.host.memory_bytes)),
    },
];
