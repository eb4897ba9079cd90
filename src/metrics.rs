//! Metrics: one catalogue of all that is counted, and the handles to count with.
//!
//! A metric is declared in the catalogue, which makes it a field of [`Metrics`], and counted where it happens. Each worker
//! thread has a [`Metrics`] of its own, so that no counter is ever contended; [`render()`] sums them. Handles are resolved
//! once, when a listener, an edge or a port is set up: the data path only adds to them.

use std::marker::PhantomData;
use std::sync::Arc;

use otproxy_protocol::Word;
use prometheus::core::Collector as _;
use prometheus::{IntCounter, IntCounterVec, IntGauge};

mod catalogue;
mod fleet;
mod render;
mod sums;

pub use catalogue::{CATALOGUE, MetricFamily, MetricKind, Metrics};
pub use fleet::with_edges;
pub use render::{BuildInfo, CONTENT_TYPE, render};
pub use sums::{sums, total};

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// Returns the number of trunks that this worker has, of all edges.
    pub fn trunks(&self) -> u64 {
        let families = self.tunnel_trunks.collect();
        let trunks = families.iter().flat_map(|family| family.get_metric());
        trunks.map(|trunks| trunks.get_gauge().get_value() as u64).sum()
    }

    /// Returns metrics at zero.
    ///
    /// # Panics
    /// Where the catalogue is wrong, which every test would show.
    pub fn new() -> Self {
        #[expect(clippy::expect_used, reason = "the catalogue is constant, so that every test finds it wrong")]
        Self::build().expect("the catalogue has valid and different names")
    }

    /// Returns what counts one panic each time that it is called.
    pub fn on_panic(&self) -> impl Fn() + Send + Sync + 'static {
        let panics = self.panics.clone();
        move || panics.inc()
    }

    /// Returns a guard for a task to hold: it counts the panic that ends the task, if one does.
    pub fn panic_count(&self) -> PanicCount {
        PanicCount(self.panics.clone())
    }
}

/// Counts a panic that unwinds through its holder.
#[derive(Debug)]
pub struct PanicCount(IntCounter);

impl Drop for PanicCount {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.inc();
        }
    }
}

/// Counts one in a gauge while it is held.
#[derive(Debug)]
pub struct GaugeGuard(IntGauge);

impl GaugeGuard {
    /// Counts one in `gauge`.
    pub fn new(gauge: IntGauge) -> Self {
        gauge.inc();
        Self(gauge)
    }
}

impl Drop for GaugeGuard {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// One counter for each reason of an enum, all there from the start: a rate needs the zero before
/// the first event.
#[derive(Debug)]
pub struct ByReason<R> {
    counters: Arc<[IntCounter]>,
    reason: PhantomData<R>,
}

impl<R> Clone for ByReason<R> {
    fn clone(&self) -> Self {
        Self { counters: Arc::clone(&self.counters), reason: PhantomData }
    }
}

impl<R: Word> ByReason<R> {
    /// Returns the counters of `family` with these values of its labels; its last label is the reason.
    ///
    /// # Panics
    /// Where the family has another number of labels.
    pub fn new(family: &IntCounterVec, labels: &[&str]) -> Self {
        let counter = |reason: &R| family.with_label_values(&[labels, &[reason.as_str()]].concat());
        Self { counters: R::ALL.iter().map(counter).collect(), reason: PhantomData }
    }

    /// Counts one.
    pub fn inc(&self, reason: R) {
        if let Some(counter) = self.counters.get(reason.index()) {
            counter.inc();
        }
    }

    /// Returns the count of this reason.
    pub fn get(&self, reason: R) -> u64 {
        self.counters.get(reason.index()).map_or(0, IntCounter::get)
    }
}

#[cfg(test)]
mod tests;
