//! The metrics of a listener.

use otproxy_net::ConnectResult;
use prometheus::{IntCounter, IntGauge};

use crate::connection::{AdmissionError, CloseReason};
use crate::metrics::{ByReason, Metrics};

/// The metrics of one listener.
#[derive(Debug, Clone)]
pub struct ListenerMetrics {
    /// Connections accepted.
    pub accepted: IntCounter,
    /// Connections open.
    pub active: IntGauge,
    /// Payload bytes from players.
    pub bytes_in: IntCounter,
    /// Payload bytes to players.
    pub bytes_out: IntCounter,
    /// Accepts that failed.
    pub accept_errors: IntCounter,
    rejected: ByReason<AdmissionError>,
    closed: ByReason<CloseReason>,
    connects: ByReason<ConnectResult>,
}

impl ListenerMetrics {
    /// Returns the handles of a listener, by its name.
    pub fn new(metrics: &Metrics, name: &str) -> Self {
        Self {
            accepted: metrics.connections_accepted.with_label_values(&[name]),
            active: metrics.connections_active.with_label_values(&[name]),
            bytes_in: metrics.bytes.with_label_values(&[name, "in"]),
            bytes_out: metrics.bytes.with_label_values(&[name, "out"]),
            accept_errors: metrics.accept_errors.with_label_values(&[name]),
            rejected: ByReason::new(&metrics.connections_rejected, &[name]),
            closed: ByReason::new(&metrics.connections_closed, &[name]),
            connects: ByReason::new(&metrics.target_connects, &[name]),
        }
    }

    /// Counts a connection that was refused.
    pub fn rejected(&self, reason: AdmissionError) {
        self.rejected.inc(reason);
    }

    /// Counts a connection that has ended.
    pub fn closed(&self, reason: CloseReason) {
        self.closed.inc(reason);
    }

    /// Counts an attempt to reach a target.
    pub fn connect(&self, result: ConnectResult) {
        self.connects.inc(result);
    }

    /// Returns the connections that were refused for this reason.
    pub fn rejections(&self, reason: AdmissionError) -> u64 {
        self.rejected.get(reason)
    }

    /// Returns the connections that have ended for this reason.
    pub fn closes(&self, reason: CloseReason) -> u64 {
        self.closed.get(reason)
    }
}
