//! The metrics that kubelet takes from a runtime in cadvisor's place, under cadvisor's names (ListPodSandboxMetrics).
//!
//! One table says what a metric is called and where its values come from, so that no descriptor is without values.

mod cpu;
mod disk;
mod memory;
mod network;
mod process;
mod settings;
mod vm;

use crate::stats::{ContainerSample, PodSample};

/// Nanoseconds of a second.
const SECOND: u64 = 1_000_000_000;
/// Microseconds of a second.
const SECOND_USEC: u64 = 1_000_000;
/// Labels that every metric has: the first two name the pod, the others a container, or nothing.
pub const COMMON_LABELS: [&str; 5] = ["pod", "namespace", "container", "id", "image"];

/// Whether a value only grows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// It does.
    Counter,
    /// It goes up and down.
    Gauge,
}

/// A value, with those labels that it has besides [`COMMON_LABELS`].
#[derive(Debug, PartialEq, Eq)]
pub struct Value {
    /// In the order of [`Metric::labels`].
    pub labels: Vec<String>,
    /// Whole units.
    pub value: u64,
}

/// Whose metric it is, and how it is read.
#[derive(Debug, Clone, Copy)]
pub enum Read {
    /// A pod's as a whole.
    Pod(fn(&PodSample) -> Vec<Value>),
    /// Each container's.
    Container(fn(&ContainerSample) -> Vec<Value>),
}

/// One metric.
#[derive(Debug, Clone, Copy)]
pub struct Metric {
    /// Its name.
    pub name: &'static str,
    /// What it says, in words.
    pub help: &'static str,
    /// Whether it only grows.
    pub kind: Kind,
    /// Its labels besides [`COMMON_LABELS`].
    pub labels: &'static [&'static str],
    /// Its values.
    pub read: Read,
}

/// All metrics.
pub fn all() -> impl Iterator<Item = &'static Metric> {
    [
        cpu::METRICS,
        memory::METRICS,
        disk::METRICS,
        network::METRICS,
        process::METRICS,
        settings::METRICS,
        vm::METRICS,
    ]
    .into_iter()
    .flatten()
}

const fn container(
    name: &'static str,
    help: &'static str,
    kind: Kind,
    read: fn(&ContainerSample) -> Vec<Value>,
) -> Metric {
    Metric { name, help, kind, labels: &[], read: Read::Container(read) }
}

/// A single value without more labels.
fn one(value: u64) -> Vec<Value> {
    vec![Value { labels: Vec::new(), value }]
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn names_are_unique_and_all_say_what_they_are() {
        let mut names = HashSet::new();
        for metric in all() {
            assert!(names.insert(metric.name), "{} is there twice", metric.name);
            assert!(!metric.help.is_empty());
            let ours = metric.name.starts_with("container_") || metric.name.starts_with("a3s_box_");
            assert!(ours, "{}", metric.name);
            let counts = metric.name.ends_with("_total") || metric.name == "container_memory_failcnt";
            // cadvisor's name of something that does not grow.
            let counts = counts && metric.name != "container_fs_inodes_total";
            assert_eq!(metric.kind == Kind::Counter, counts, "{}", metric.name);
        }
    }
}
