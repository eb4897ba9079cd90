//! Sums of what all workers have counted.

use std::collections::BTreeMap;
use std::sync::Arc;

use prometheus::core::Collector;

use super::Metrics;

/// Returns the values of a family's series, those with the same value of this label added up. Of histograms it is the sum of what was
/// observed.
pub fn sums<C: Collector>(all: &[Arc<Metrics>], family: impl Fn(&Metrics) -> &C, label: &str) -> BTreeMap<String, f64> {
    let mut sums = BTreeMap::new();
    for metrics in all {
        for family in family(metrics).collect() {
            for series in family.get_metric() {
                let name = series.get_label().iter().find(|pair| pair.name() == label);
                let name = name.map(|pair| pair.value().to_owned()).unwrap_or_default();
                let value = series.get_counter().get_value() + series.get_gauge().get_value();
                *sums.entry(name).or_default() += value + series.get_histogram().get_sample_sum();
            }
        }
    }
    sums
}

/// Returns the sum of all series of a family.
pub fn total<C: Collector>(all: &[Arc<Metrics>], family: impl Fn(&Metrics) -> &C) -> f64 {
    sums(all, family, "").into_values().sum()
}

impl Metrics {
    /// Returns whether each target is up, by its listener and its name.
    pub fn targets_up(&self) -> Vec<((String, String), bool)> {
        let families = self.target_up.collect();
        let target = |series: &prometheus::proto::Metric| {
            let value = |label: &str| {
                let pair = series.get_label().iter().find(|pair| pair.name() == label);
                pair.map(|pair| pair.value().to_owned()).unwrap_or_default()
            };
            ((value("listener"), value("target")), series.get_gauge().get_value() > 0.0)
        };
        families.iter().flat_map(|family| family.get_metric()).map(target).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn series_of_all_workers_are_added_up_by_a_label() {
        let workers = [Arc::new(Metrics::new()), Arc::new(Metrics::new())];
        for (worker, bytes) in workers.iter().zip([1, 10]) {
            worker.bytes.with_label_values(&["a", "in"]).inc_by(bytes);
            worker.bytes.with_label_values(&["b", "in"]).inc_by(bytes);
            worker.bytes.with_label_values(&["a", "out"]).inc_by(100 * bytes);
            worker.tunnel_trunks.with_label_values(&["waw1"]).set(3);
            worker.relay_link_rtt.with_label_values(&["waw1"]).observe(0.5);
        }
        let by_direction = sums(&workers, |metrics| &metrics.bytes, "direction");
        assert_eq!(by_direction, [("in".to_owned(), 22.0), ("out".to_owned(), 1100.0)].into());
        assert_eq!(total(&workers, |metrics| &metrics.tunnel_trunks), 6.0);
        assert_eq!(total(&workers, |metrics| &metrics.relay_link_rtt), 1.0);
        assert_eq!(total(&workers, |metrics| &metrics.panics), 0.0);
    }
}
