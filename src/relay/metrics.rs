//! The metrics of links and sessions.

use std::sync::Arc;

use otproxy_protocol::core::EndReason;
use prometheus::{Histogram, IntCounter, IntGauge};

use super::beat::Beat;
use super::signs::SignCounters;
use crate::metrics::{ByReason, Metrics};

/// The metrics of the links of one edge.
#[derive(Debug, Clone)]
pub struct EdgeMetrics {
    /// The label.
    pub name: Arc<str>,
    /// Links open.
    pub links: IntGauge,
    /// Round trips in seconds.
    pub rtt: Histogram,
    /// Data frames from players whose packet had not come before.
    pub in_first: IntCounter,
    /// Data frames from players whose packet had.
    pub in_duplicate: IntCounter,
    /// Data frames to players whose packet was not written elsewhere before.
    pub out_first: IntCounter,
    /// Data frames to players whose packet was.
    pub out_duplicate: IntCounter,
    /// The counters for those who judge the edge.
    pub(super) signs: SignCounters,
}

impl EdgeMetrics {
    /// Returns the handles of an edge, by its name, or `other`.
    pub fn new(metrics: &Metrics, name: &str) -> Self {
        let frames = |direction, outcome| metrics.relay_frames.with_label_values(&[name, direction, outcome]);
        Self {
            name: name.into(),
            links: metrics.relay_links_active.with_label_values(&[name]),
            rtt: metrics.relay_link_rtt.with_label_values(&[name]),
            in_first: frames("in", "first"),
            in_duplicate: frames("in", "duplicate"),
            out_first: frames("out", "first"),
            out_duplicate: frames("out", "duplicate"),
            signs: SignCounters::default(),
        }
    }

    /// Removes the series of an edge that is configured no more. Links that are left count where nobody sees it.
    pub fn forget(metrics: &Metrics, name: &str) {
        // Series that are gone already need no removal.
        let _ = metrics.relay_links_active.remove_label_values(&[name]);
        let _ = metrics.relay_link_rtt.remove_label_values(&[name]);
        for direction in ["in", "out"] {
            for outcome in ["first", "duplicate"] {
                let _ = metrics.relay_frames.remove_label_values(&[name, direction, outcome]);
            }
        }
    }
}

/// The metrics of the sessions of one port.
#[derive(Debug, Clone)]
pub struct PortMetrics {
    /// Sessions alive.
    pub sessions_active: IntGauge,
    /// Sessions opened.
    pub opened: IntCounter,
    /// Packets to the game server.
    pub packets_in: IntCounter,
    /// Packets to the player.
    pub packets_out: IntCounter,
    ended: ByReason<EndReason>,
    /// Notes which sessions hear from the game server.
    pub(super) beat: Arc<Beat>,
}

impl PortMetrics {
    /// Returns the handles of a port of `game_servers`.
    pub fn new(metrics: &Metrics, port: u16) -> Self {
        let port = port.to_string();
        Self {
            sessions_active: metrics.relay_sessions_active.with_label_values(&[&port]),
            opened: metrics.relay_sessions_opened.with_label_values(&[&port]),
            packets_in: metrics.relay_packets.with_label_values(&[port.as_str(), "in"]),
            packets_out: metrics.relay_packets.with_label_values(&[port.as_str(), "out"]),
            ended: ByReason::new(&metrics.relay_sessions_ended, &[&port]),
            beat: Arc::default(),
        }
    }

    /// Counts a session that has ended.
    pub fn ended(&self, reason: EndReason) {
        self.ended.inc(reason);
    }
}
