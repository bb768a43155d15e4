//! Metrics.

use a3s_box_proto::cri;

use crate::{
    metrics::{self, COMMON_LABELS, Kind, Metric, Read, Value},
    stats::{ContainerSample, PodSample},
};

/// What there is.
pub fn descriptors() -> Vec<cri::MetricDescriptor> {
    let describe = |metric: &Metric| cri::MetricDescriptor {
        name: metric.name.into(),
        help: metric.help.into(),
        label_keys: COMMON_LABELS.iter().chain(metric.labels).map(ToString::to_string).collect(),
    };
    metrics::all().map(describe).collect()
}

/// All values of a pod and of its containers.
pub fn pod(sample: &PodSample) -> cri::PodSandboxMetrics {
    let metadata = sample.sandbox.record.with(|record| record.config.metadata.clone()).unwrap_or_default();
    let pod = [metadata.name, metadata.namespace];
    let of_pod = labels(&pod, "", sample.sandbox.id.as_str(), "");
    let values = metrics::all().filter_map(|metric| match metric.read {
        Read::Pod(read) => Some((metric, read(sample))),
        Read::Container(_) => None,
    });
    cri::PodSandboxMetrics {
        pod_sandbox_id: sample.sandbox.id.to_string(),
        metrics: encode(values, &of_pod, sample.figures.at),
        container_metrics: sample.containers.iter().map(|sample| container(&pod, sample)).collect(),
    }
}

fn container(pod: &[String; 2], sample: &ContainerSample) -> cri::ContainerMetrics {
    let (name, image) = sample
        .container
        .record
        .with(|record| (record.config.metadata.clone().unwrap_or_default().name, record.image.name.clone()));
    let id = sample.container.id.as_str();
    let of_container = labels(pod, &name, id, &image);
    let values = metrics::all().filter_map(|metric| match metric.read {
        Read::Container(read) => Some((metric, read(sample))),
        Read::Pod(_) => None,
    });
    cri::ContainerMetrics {
        container_id: id.to_owned(),
        metrics: encode(values, &of_container, sample.figures.at),
    }
}

/// In the order of [`COMMON_LABELS`].
fn labels([pod, namespace]: &[String; 2], container: &str, id: &str, image: &str) -> [String; 5] {
    [pod.clone(), namespace.clone(), container.into(), id.into(), image.into()]
}

fn encode<'a>(
    values: impl Iterator<Item = (&'a Metric, Vec<Value>)>,
    common: &[String],
    at: i64,
) -> Vec<cri::Metric> {
    let all = values.flat_map(|(metric, values)| values.into_iter().map(move |value| (metric, value)));
    all.map(|(metric, Value { labels, value })| cri::Metric {
        name: metric.name.into(),
        timestamp: at,
        metric_type: kind(metric.kind).into(),
        label_values: common.iter().cloned().chain(labels).collect(),
        value: Some(cri::UInt64Value { value }),
    })
    .collect()
}

fn kind(kind: Kind) -> cri::MetricType {
    match kind {
        Kind::Counter => cri::MetricType::Counter,
        Kind::Gauge => cri::MetricType::Gauge,
    }
}
