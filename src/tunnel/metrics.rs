//! The metrics of the tunnel with one edge.

use otproxy_net::ConnectResult;
use prometheus::IntGauge;

use super::refusal::TunnelError;
use crate::metrics::{ByReason, GaugeGuard, Metrics};

/// The metrics of the tunnel with one edge.
#[derive(Debug, Clone)]
pub struct TunnelMetrics {
    trunks: IntGauge,
    streams: IntGauge,
    dials: ByReason<ConnectResult>,
    refused: ByReason<TunnelError>,
}

impl TunnelMetrics {
    /// Returns the handles of the tunnel with one edge, by its name.
    pub fn new(metrics: &Metrics, edge: &str) -> Self {
        Self {
            trunks: metrics.tunnel_trunks.with_label_values(&[edge]),
            streams: metrics.tunnel_streams.with_label_values(&[edge]),
            dials: ByReason::new(&metrics.tunnel_dials, &[edge]),
            refused: ByReason::new(&metrics.tunnel_streams_refused, &[edge]),
        }
    }

    /// Removes the series of an edge that is trusted no more: nobody waits for it.
    pub fn forget(metrics: &Metrics, edge: &str) {
        // What is removed already needs no removal.
        let _ = metrics.tunnel_trunks.remove_label_values(&[edge]);
        let _ = metrics.tunnel_streams.remove_label_values(&[edge]);
        for result in ConnectResult::ALL {
            let _ = metrics.tunnel_dials.remove_label_values(&[edge, result.as_str()]);
        }
        for reason in TunnelError::ALL {
            let _ = metrics.tunnel_streams_refused.remove_label_values(&[edge, reason.as_str()]);
        }
    }

    /// Counts a trunk while the guard is held.
    pub fn trunk(&self) -> GaugeGuard {
        GaugeGuard::new(self.trunks.clone())
    }

    /// Counts a stream while the guard is held.
    pub fn stream(&self) -> GaugeGuard {
        GaugeGuard::new(self.streams.clone())
    }

    /// Counts an attempt to connect, and how it failed, if it did.
    pub fn dialled(&self, failed: Option<ConnectResult>) {
        self.dials.inc(failed.unwrap_or(ConnectResult::Ok));
    }

    /// Counts a stream that was refused.
    pub fn refused(&self, refusal: TunnelError) {
        self.refused.inc(refusal);
    }
}
