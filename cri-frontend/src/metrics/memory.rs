//! Memory, huge pages, and waiting for memory.

use super::{
    Kind::{Counter, Gauge},
    Metric, Read, SECOND_USEC, Value, container, one,
};

pub(super) const METRICS: &[Metric] = &[
    container("container_memory_usage_bytes", "Memory in use, caches included.", Gauge, |sample| {
        one(sample.figures.memory.usage)
    }),
    container(
        "container_memory_working_set_bytes",
        "Memory in use that cannot be reclaimed at once.",
        Gauge,
        |sample| one(sample.figures.working_set()),
    ),
    container("container_memory_max_usage_bytes", "The most memory that was ever in use.", Gauge, |sample| {
        one(sample.figures.memory.peak)
    }),
    container("container_memory_rss", "Memory of programs, bytes.", Gauge, |sample| {
        one(sample.figures.memory.anon)
    }),
    container("container_memory_cache", "Memory of cached files, bytes.", Gauge, |sample| {
        one(sample.figures.memory.file)
    }),
    container("container_memory_mapped_file", "Memory of mapped files, bytes.", Gauge, |sample| {
        one(sample.figures.memory.mapped_file)
    }),
    container(
        "container_memory_kernel_usage",
        "Memory of the guest's kernel for this container, bytes.",
        Gauge,
        |sample| one(sample.figures.memory.kernel),
    ),
    container(
        "container_memory_total_active_file_bytes",
        "Memory of cached files that were used lately.",
        Gauge,
        |sample| one(sample.figures.memory.active_file),
    ),
    container(
        "container_memory_total_inactive_file_bytes",
        "Memory of cached files that could be dropped at once.",
        Gauge,
        |sample| one(sample.figures.memory.inactive_file),
    ),
    container("container_memory_swap", "Swapped out, bytes.", Gauge, |sample| {
        one(sample.figures.memory.swap_usage)
    }),
    container("container_memory_failcnt", "How often the limit was reached.", Counter, |sample| {
        one(sample.figures.memory.limit_hits)
    }),
    Metric {
        name: "container_memory_failures_total",
        help: "Page faults, and those that read a disk.",
        kind: Counter,
        labels: &["failure_type", "scope"],
        read: Read::Container(|sample| {
            let memory = &sample.figures.memory;
            [("pgfault", memory.page_faults), ("pgmajfault", memory.major_page_faults)]
                .map(|(kind, value)| Value { labels: vec![kind.into(), "container".into()], value })
                .into()
        }),
    },
    container(
        "container_oom_events_total",
        "Processes that were killed for want of memory.",
        Counter,
        |sample| one(sample.figures.memory.oom_kills),
    ),
    Metric {
        name: "container_hugetlb_usage_bytes",
        help: "Memory of huge pages.",
        kind: Gauge,
        labels: &["pagesize"],
        read: Read::Container(|sample| {
            let value = |pages: &a3s_box_proto::agent::HugepageStats| Value {
                labels: vec![pages.page_size.clone()],
                value: pages.usage,
            };
            sample.told.hugepages.iter().map(value).collect()
        }),
    },
    container(
        "container_pressure_memory_waiting_seconds_total",
        "Time in which a task waited for memory, in whole seconds.",
        Counter,
        |sample| one(sample.figures.memory.pressure.some.total_usec / SECOND_USEC),
    ),
    container(
        "container_pressure_memory_stalled_seconds_total",
        "Time in which all tasks waited for memory, in whole seconds.",
        Counter,
        |sample| one(sample.figures.memory.pressure.full.total_usec / SECOND_USEC),
    ),
];
