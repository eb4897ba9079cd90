//! The metrics of bans.

use prometheus::{IntCounter, IntGauge};

use super::BanReason;
use crate::metrics::{ByReason, Metrics};

/// The metrics of bans.
#[derive(Debug, Clone)]
pub struct BanMetrics {
    /// Networks banned now.
    pub active: IntGauge,
    /// Calls of nft that failed.
    pub nftables_errors: IntCounter,
    made: ByReason<BanReason>,
}

impl BanMetrics {
    /// Returns the handles of the bans.
    pub fn new(metrics: &Metrics) -> Self {
        Self {
            active: metrics.bans_active.clone(),
            nftables_errors: metrics.bans_nftables_errors.clone(),
            made: ByReason::new(&metrics.bans, &[]),
        }
    }

    /// Counts a ban.
    pub fn banned(&self, reason: BanReason) {
        self.made.inc(reason);
    }

    /// Returns the bans made for this reason.
    #[cfg(test)]
    pub fn made(&self, reason: BanReason) -> u64 {
        self.made.get(reason)
    }
}
