//! The pod's network interfaces, as the guest has them.

use a3s_box_proto::agent::InterfaceStats;

use super::{Kind::Counter, Metric, Read, Value};
use crate::stats::PodSample;

const fn of_interfaces(name: &'static str, help: &'static str, read: fn(&PodSample) -> Vec<Value>) -> Metric {
    Metric { name, help, kind: Counter, labels: &["interface"], read: Read::Pod(read) }
}

fn each(sample: &PodSample, value: fn(&InterfaceStats) -> u64) -> Vec<Value> {
    let named = |of: &InterfaceStats| Value { labels: vec![of.name.clone()], value: value(of) };
    sample.interfaces.iter().map(named).collect()
}

pub(super) const METRICS: &[Metric] = &[
    of_interfaces("container_network_receive_bytes_total", "Bytes received.", |sample| {
        each(sample, |of| of.rx_bytes)
    }),
    of_interfaces("container_network_receive_packets_total", "Packets received.", |sample| {
        each(sample, |of| of.rx_packets)
    }),
    of_interfaces(
        "container_network_receive_packets_dropped_total",
        "Received packets that were dropped.",
        |sample| each(sample, |of| of.rx_dropped),
    ),
    of_interfaces("container_network_receive_errors_total", "Errors in receiving.", |sample| {
        each(sample, |of| of.rx_errors)
    }),
    of_interfaces("container_network_transmit_bytes_total", "Bytes sent.", |sample| {
        each(sample, |of| of.tx_bytes)
    }),
    of_interfaces("container_network_transmit_packets_total", "Packets sent.", |sample| {
        each(sample, |of| of.tx_packets)
    }),
    of_interfaces(
        "container_network_transmit_packets_dropped_total",
        "Packets that were dropped instead of sent.",
        |sample| each(sample, |of| of.tx_dropped),
    ),
    of_interfaces("container_network_transmit_errors_total", "Errors in sending.", |sample| {
        each(sample, |of| of.tx_errors)
    }),
];
