//! The writable layer, the scratch disk below it, and waiting for it.

use a3s_box_proto::agent::DeviceIo;

use super::{
    Kind::{Counter, Gauge},
    Metric, Read, SECOND_USEC, Value, container, one,
};
use crate::stats::ContainerSample;

/// What cadvisor calls a container's root filesystem.
const ROOT: &str = "/";

const fn of_root(name: &'static str, help: &'static str, read: fn(&ContainerSample) -> Vec<Value>) -> Metric {
    Metric { name, help, kind: Gauge, labels: &["device"], read: Read::Container(read) }
}

fn root(value: u64) -> Vec<Value> {
    vec![Value { labels: vec![ROOT.into()], value }]
}

const fn of_devices(
    name: &'static str,
    help: &'static str,
    read: fn(&ContainerSample) -> Vec<Value>,
) -> Metric {
    Metric { name, help, kind: Counter, labels: &["device"], read: Read::Container(read) }
}

/// A device has no other name than its numbers outside its guest.
fn devices(sample: &ContainerSample, value: fn(&DeviceIo) -> u64) -> Vec<Value> {
    let named =
        |io: &DeviceIo| Value { labels: vec![format!("{}:{}", io.major, io.minor)], value: value(io) };
    sample.figures.io.devices.iter().map(named).collect()
}

fn by_operation(sample: &ContainerSample) -> Vec<Value> {
    let both = |io: &DeviceIo| {
        let (major, minor) = (io.major.to_string(), io.minor.to_string());
        [("Read", io.read_bytes), ("Write", io.written_bytes)].map(|(operation, value)| Value {
            labels: vec![format!("{major}:{minor}"), major.clone(), minor.clone(), operation.into()],
            value,
        })
    };
    sample.figures.io.devices.iter().flat_map(both).collect()
}

pub(super) const METRICS: &[Metric] = &[
    of_root("container_fs_usage_bytes", "Bytes of the writable layer.", |sample| {
        root(sample.told.writable_bytes)
    }),
    of_root(
        "container_fs_limit_bytes",
        "Bytes of the scratch disk that the writable layers of the pod share.",
        |sample| root(sample.told.filesystem_bytes),
    ),
    of_root("container_fs_inodes_total", "Inodes of the scratch disk.", |sample| {
        root(sample.told.filesystem_inodes)
    }),
    of_root("container_fs_inodes_free", "Inodes of the scratch disk that are left.", |sample| {
        root(sample.told.filesystem_inodes_free)
    }),
    of_devices("container_fs_reads_total", "Requests that read.", |sample| devices(sample, |io| io.reads)),
    of_devices("container_fs_writes_total", "Requests that wrote.", |sample| devices(sample, |io| io.writes)),
    of_devices("container_fs_reads_bytes_total", "Bytes read.", |sample| devices(sample, |io| io.read_bytes)),
    of_devices("container_fs_writes_bytes_total", "Bytes written.", |sample| {
        devices(sample, |io| io.written_bytes)
    }),
    Metric {
        name: "container_blkio_device_usage_total",
        help: "Bytes by device and operation.",
        kind: Counter,
        labels: &["device", "major", "minor", "operation"],
        read: Read::Container(by_operation),
    },
    container(
        "container_pressure_io_waiting_seconds_total",
        "Time in which a task waited for a disk, in whole seconds.",
        Counter,
        |sample| one(sample.figures.io.pressure.some.total_usec / SECOND_USEC),
    ),
    container(
        "container_pressure_io_stalled_seconds_total",
        "Time in which all tasks waited for a disk, in whole seconds.",
        Counter,
        |sample| one(sample.figures.io.pressure.full.total_usec / SECOND_USEC),
    ),
];
