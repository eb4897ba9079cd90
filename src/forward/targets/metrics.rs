//! The metrics of targets.

use std::time::Duration;

use prometheus::Histogram;

use super::{CheckResult, TargetState};
use crate::metrics::{ByReason, Metrics};

/// The metrics of the checks of one target.
#[derive(Debug, Clone)]
pub struct TargetChecks {
    results: ByReason<CheckResult>,
    rtt: Option<Histogram>,
}

impl TargetChecks {
    /// Returns the handles of a target that is checked, and pinged if `ping`.
    pub fn new(metrics: &Metrics, listener: &str, target: &str, ping: bool) -> Self {
        let rtt = ping.then(|| metrics.target_check_rtt.with_label_values(&[listener, target]));
        Self { results: ByReason::new(&metrics.target_checks, &[listener, target]), rtt }
    }

    /// Counts a check, and the round trip of its ping.
    pub fn checked(&self, result: CheckResult, rtt: Option<Duration>) {
        self.results.inc(result);
        if let (Some(histogram), Some(rtt)) = (&self.rtt, rtt) {
            histogram.observe(rtt.as_secs_f64());
        }
    }
}

/// Shows what the operator wants of a target.
pub fn show_state(metrics: &Metrics, listener: &str, target: &str, state: TargetState) {
    for other in TargetState::ALL {
        let gauge = metrics.target_state.with_label_values(&[listener, target, other.as_str()]);
        gauge.set(i64::from(*other == state));
    }
}

/// Removes what showed that a target is up, or down for ever: it is none any more.
pub fn forget(metrics: &Metrics, listener: &str, target: &str) {
    // These fail where there was none.
    let _ = metrics.target_up.remove_label_values(&[listener, target]);
    for state in TargetState::ALL {
        let _ = metrics.target_state.remove_label_values(&[listener, target, state.as_str()]);
    }
}
