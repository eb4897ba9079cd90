//! The signs of an edge, from one round to the next.

use std::sync::Arc;
use std::time::Duration;

/// The signs of one edge since the last round.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EdgeEvidence {
    /// Its trunks now; `None` where edges come without a tunnel.
    pub trunks: Option<usize>,
    /// The round trip of its best trunk.
    pub trunk_round_trip: Option<Duration>,
    /// Players' links over it now.
    pub links: u64,
    /// Players' links over it from which anything came.
    pub heard: u64,
    /// Players' links over it that broke while other links of the same clients lived.
    pub lost: u64,
    /// The middle one of the round trips that players told on links over it.
    pub round_trip: Option<Duration>,
    /// The visits of other edges at its public address.
    pub probes: Vec<EdgeProbe>,
    /// Bytes of its host in this month of its bill, both directions.
    pub traffic: Option<u64>,
}

/// A visit of one edge at the public address of another, as a player's client makes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EdgeProbe {
    /// The name of the edge that visited.
    pub from: Arc<str>,
    /// The round trip of a ping to the core and back; `None` if there was no answer in time.
    pub round_trip: Option<Duration>,
}
