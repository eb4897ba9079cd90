//! The exposition: all workers' metrics as one text.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;

use prometheus::TextEncoder;
use prometheus::core::Collector;
use prometheus::process_collector::ProcessCollector;
use prometheus::proto::{Bucket, Counter, Gauge, Histogram, Metric, MetricFamily, MetricType};

use super::Metrics;

/// The `Content-Type` of what [`render`] gives.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The labels of `otproxy_build_info`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BuildInfo {
    /// The program's version.
    pub version: &'static str,
    /// `edge` or `core`.
    pub role: &'static str,
}

/// All of `all` in Prometheus' text format 0.0.4, equal series summed, with the process' own and
/// the build's metrics.
pub fn render(all: &[Arc<Metrics>], build: BuildInfo) -> String {
    let mut sum = Sum::default();
    for metrics in all {
        sum.add(metrics.registry.gather());
    }
    // Metrics of nobody else, as it is one for the process.
    let own = Metrics::new();
    own.build_info.with_label_values(&[build.version, build.role]).set(1);
    sum.add(own.build_info.collect());
    sum.add(ProcessCollector::for_self().collect());
    match TextEncoder::new().encode_to_string(&sum.into_families()) {
        Ok(text) => text,
        // Into a string it fails only for a family without a name or a series, and none is.
        Err(error) => {
            tracing::error!(%error, "cannot write the metrics");
            String::new()
        }
    }
}

/// Names and values, which tell one series of a family from another.
type Labels = Vec<(String, String)>;

/// Families by name, their series by labels: in order, so that the text does not jump about.
#[derive(Default)]
struct Sum(BTreeMap<String, (MetricFamily, BTreeMap<Labels, Metric>)>);

impl Sum {
    fn add(&mut self, families: Vec<MetricFamily>) {
        for mut family in families {
            let (kind, metrics) = (family.get_field_type(), family.take_metric());
            let (_, series) = self.0.entry(family.name().to_owned()).or_insert_with(|| (family, BTreeMap::new()));
            for metric in metrics {
                let labels = metric.get_label().iter().map(|pair| (pair.name().to_owned(), pair.value().to_owned()));
                match series.entry(labels.collect()) {
                    Entry::Vacant(entry) => drop(entry.insert(metric)),
                    Entry::Occupied(mut entry) => add(kind, entry.get_mut(), &metric),
                }
            }
        }
    }

    fn into_families(self) -> Vec<MetricFamily> {
        let family = |(mut family, series): (MetricFamily, BTreeMap<_, _>)| {
            family.set_metric(series.into_values().collect());
            family
        };
        self.0.into_values().map(family).filter(|family| !family.get_metric().is_empty()).collect()
    }
}

fn add(kind: MetricType, sum: &mut Metric, metric: &Metric) {
    match kind {
        MetricType::COUNTER => {
            let mut counter = Counter::default();
            counter.set_value(sum.get_counter().get_value() + metric.get_counter().get_value());
            sum.set_counter(counter);
        }
        MetricType::GAUGE => {
            let mut gauge = Gauge::default();
            gauge.set_value(sum.get_gauge().get_value() + metric.get_gauge().get_value());
            sum.set_gauge(gauge);
        }
        MetricType::HISTOGRAM => sum.set_histogram(add_histograms(sum.get_histogram(), metric.get_histogram())),
        // This program has none.
        MetricType::SUMMARY | MetricType::UNTYPED => {}
    }
}

/// Both have the same buckets: they come from the same constructor.
fn add_histograms(a: &Histogram, b: &Histogram) -> Histogram {
    let bucket = |(a, b): (&Bucket, &Bucket)| {
        let mut bucket = Bucket::default();
        bucket.set_upper_bound(a.upper_bound());
        bucket.set_cumulative_count(a.cumulative_count() + b.cumulative_count());
        bucket
    };
    let mut sum = Histogram::default();
    sum.set_sample_count(a.get_sample_count() + b.get_sample_count());
    sum.set_sample_sum(a.get_sample_sum() + b.get_sample_sum());
    sum.set_bucket(a.get_bucket().iter().zip(b.get_bucket()).map(bucket).collect());
    sum
}
