//! The metrics of the tunnel with one edge.

use otproxy_net::ConnectResult;
use prometheus::IntGauge;

use super::refusal::TunnelError;
use crate::metrics::{ByReason, GaugeGuard, Metrics};

/// The metrics of the tunnel with one edge.
#[derive(Debug, Clone)]
pub struct TunnelMetrics {
    spare: IntGauge,
    /// Connections that carry a player.
    pub in_use: IntGauge,
    dials: ByReason<ConnectResult>,
    refused: ByReason<TunnelError>,
}

impl TunnelMetrics {
    /// Returns the handles of the tunnel with one edge, by its name.
    pub fn new(metrics: &Metrics, edge: &str) -> Self {
        Self {
            spare: metrics.tunnel_connections.with_label_values(&[edge, "spare"]),
            in_use: metrics.tunnel_connections.with_label_values(&[edge, "in_use"]),
            dials: ByReason::new(&metrics.tunnel_dials, &[edge]),
            refused: ByReason::new(&metrics.tunnel_streams_refused, &[edge]),
        }
    }

    /// Removes the series of an edge that is trusted no more: nobody waits for it.
    pub fn forget(metrics: &Metrics, edge: &str) {
        // What is removed already needs no removal.
        for state in ["spare", "in_use"] {
            let _ = metrics.tunnel_connections.remove_label_values(&[edge, state]);
        }
        for result in ConnectResult::ALL {
            let _ = metrics.tunnel_dials.remove_label_values(&[edge, result.as_str()]);
        }
        for reason in TunnelError::ALL {
            let _ = metrics.tunnel_streams_refused.remove_label_values(&[edge, reason.as_str()]);
        }
    }

    /// Counts a spare connection while the guard is held.
    pub fn spare(&self) -> GaugeGuard {
        GaugeGuard::new(self.spare.clone())
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
