//! Processes, and what they hold.

use a3s_box_proto::agent::SoftLimit;

use super::{Kind::Gauge, Metric, Read, SECOND, Value, container, one};
use crate::{container::ContainerState, stats::ContainerSample};

fn started_at(sample: &ContainerSample) -> u64 {
    sample.container.record.with(|record| match record.state {
        ContainerState::Running { started_at } => u64::try_from(started_at).unwrap_or_default() / SECOND,
        _ => 0,
    })
}

pub(super) const METRICS: &[Metric] = &[
    container("container_processes", "Processes of the container.", Gauge, |sample| {
        one(sample.told.details.processes)
    }),
    container("container_threads", "Processes and their threads.", Gauge, |sample| {
        one(sample.told.process_count)
    }),
    container(
        "container_threads_max",
        "The most processes and threads that are allowed; 0 is no limit.",
        Gauge,
        |sample| one(sample.told.pids_limit),
    ),
    container("container_file_descriptors", "Open files of all processes.", Gauge, |sample| {
        one(sample.told.details.file_descriptors)
    }),
    container("container_sockets", "Open sockets of all processes.", Gauge, |sample| {
        one(sample.told.details.sockets)
    }),
    Metric {
        name: "container_ulimits_soft",
        help: "Soft limits of the container's first process; what is unlimited is not there.",
        kind: Gauge,
        labels: &["ulimit"],
        read: Read::Container(|sample| {
            let value = |limit: &SoftLimit| Value { labels: vec![limit.name.clone()], value: limit.value };
            let limited = |limit: &&SoftLimit| limit.value != u64::MAX;
            sample.told.details.soft_limits.iter().filter(limited).map(value).collect()
        }),
    },
    container(
        "container_last_seen",
        "When these figures were taken, seconds since the epoch.",
        Gauge,
        |sample| one(u64::try_from(sample.figures.at).unwrap_or_default() / SECOND),
    ),
    container(
        "container_start_time_seconds",
        "When the container was started, seconds since the epoch.",
        Gauge,
        |sample| one(started_at(sample)),
    ),
];
