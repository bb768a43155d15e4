//! The limits that a container was given.

use a3s_box_proto::cri::LinuxContainerResources;

use super::{Kind::Gauge, Metric, Value, container, one};
use crate::stats::ContainerSample;

/// The kernel's own period, microseconds.
const PERIOD: u64 = 100_000;

/// One of the limits that the container asked for, with the latest update; none where it was left open.
fn asked(sample: &ContainerSample, limit: fn(&LinuxContainerResources) -> i64) -> Option<u64> {
    let value = sample
        .container
        .record
        .with(|record| record.config.linux.as_ref().and_then(|linux| linux.resources.as_ref()).map(limit));
    value.and_then(|value| u64::try_from(value).ok()).filter(|value| *value > 0)
}

/// A value that is only there where it was set.
fn set(value: Option<u64>) -> Vec<Value> {
    value.map_or_else(Vec::new, one)
}

pub(super) const METRICS: &[Metric] = &[
    container(
        "container_spec_cpu_period",
        "Length of a period of the processor's limit, microseconds.",
        Gauge,
        |sample| one(asked(sample, |limits| limits.cpu_period).unwrap_or(PERIOD)),
    ),
    container(
        "container_spec_cpu_quota",
        "Processor time allowed in each period, microseconds; not there where there is no limit.",
        Gauge,
        |sample| set(asked(sample, |limits| limits.cpu_quota)),
    ),
    container(
        "container_spec_cpu_shares",
        "Weight against other containers of the pod; not there where none was set.",
        Gauge,
        |sample| set(asked(sample, |limits| limits.cpu_shares)),
    ),
    container(
        "container_spec_memory_limit_bytes",
        "Memory limit as the guest's kernel has it; 0 is none.",
        Gauge,
        |sample| one(sample.figures.memory.limit),
    ),
    container(
        "container_spec_memory_swap_limit_bytes",
        "Limit of swap as the guest's kernel has it; 0 is none, or no swap.",
        Gauge,
        |sample| one(sample.figures.memory.swap_limit),
    ),
];
