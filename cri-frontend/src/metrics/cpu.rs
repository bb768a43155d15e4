//! Processor time, and waiting for it.

use super::{Kind::Counter, Metric, SECOND_USEC, container, one};

pub(super) const METRICS: &[Metric] = &[
    container(
        "container_cpu_usage_seconds_total",
        "Processor time used, in whole seconds.",
        Counter,
        |sample| one(sample.figures.cpu.usage_usec / SECOND_USEC),
    ),
    container(
        "container_cpu_user_seconds_total",
        "Processor time used in programs, in whole seconds.",
        Counter,
        |sample| one(sample.figures.cpu.user_usec / SECOND_USEC),
    ),
    container(
        "container_cpu_system_seconds_total",
        "Processor time used in the guest's kernel, in whole seconds.",
        Counter,
        |sample| one(sample.figures.cpu.system_usec / SECOND_USEC),
    ),
    container(
        "container_cpu_cfs_periods_total",
        "Periods of the container's limit that have passed.",
        Counter,
        |sample| one(sample.figures.cpu.periods),
    ),
    container(
        "container_cpu_cfs_throttled_periods_total",
        "Periods in which the limit was reached.",
        Counter,
        |sample| one(sample.figures.cpu.throttled_periods),
    ),
    container(
        "container_cpu_cfs_throttled_seconds_total",
        "Time for which the limit held the container up, in whole seconds.",
        Counter,
        |sample| one(sample.figures.cpu.throttled_usec / SECOND_USEC),
    ),
    container(
        "container_pressure_cpu_waiting_seconds_total",
        "Time in which a task waited for a processor, in whole seconds.",
        Counter,
        |sample| one(sample.figures.cpu.pressure.some.total_usec / SECOND_USEC),
    ),
    container(
        "container_pressure_cpu_stalled_seconds_total",
        "Time in which all tasks waited for a processor, in whole seconds.",
        Counter,
        |sample| one(sample.figures.cpu.pressure.full.total_usec / SECOND_USEC),
    ),
];
