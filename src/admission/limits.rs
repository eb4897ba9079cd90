//! The limits of a gate.

use otproxy_config::{ListenerLimits, ProcessLimits};
use otproxy_protocol::quota::Quota;

/// The limits of admission. `None` is no limit, and the default.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct AdmissionLimits {
    /// Connections at once.
    pub connections: Option<usize>,
    /// Connections at once of one player address.
    pub connections_per_address: Option<usize>,
    /// New connections of one player address.
    pub rate_per_address: Option<Quota>,
    /// True if, at the limit of `connections`, the address with the most of them gives one up for an address with
    /// fewer.
    pub fair_share: bool,
    /// True if unauthenticated peers get less time when `connections` is nearly reached.
    pub pressure: bool,
}

impl From<&ProcessLimits> for AdmissionLimits {
    fn from(limits: &ProcessLimits) -> Self {
        let &ProcessLimits { connections, connections_per_address, rate_per_address, fair_share, pressure } = limits;
        Self { connections, connections_per_address, rate_per_address, fair_share, pressure }
    }
}

impl From<&ListenerLimits> for AdmissionLimits {
    fn from(limits: &ListenerLimits) -> Self {
        let &ListenerLimits { connections, connections_per_address, rate_per_address, fair_share, pressure, .. } =
            limits;
        Self { connections, connections_per_address, rate_per_address, fair_share, pressure }
    }
}
