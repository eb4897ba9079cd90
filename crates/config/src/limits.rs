//! `limits`, of the process and of each listener.

use otproxy_protocol::quota::Quota;

use super::declare::section;
use super::formats::{CONNECTIONS_OR_NONE, FLAG, QUANTITY_OR_NONE, RATE_OR_NONE};
use super::takes::value;

section! {
    /// `limits`: those of all listeners together.
    #[derive(Debug, Clone, PartialEq)]
    pub struct ProcessLimits {
        /// connections at once, on all listeners together; `auto` is as many as there are files and memory for
        connections: Option<usize> = value(CONNECTIONS_OR_NONE).or_by_role("auto", "none").example("50000"),
        /// connections at once by player address, on all listeners together; IPv6 counts by /64
        connections_per_address: Option<usize> = value(QUANTITY_OR_NONE).or("none").example("40"),
        /// new connections by player address, on all listeners together; IPv6 counts by /64
        rate_per_address: Option<Quota> = value(RATE_OR_NONE).or("none").example("40/10s"),
        /// whether, where `connections` is reached, the address with the most of them gives one up for a player who has fewer
        fair_share: bool = value(FLAG).or("true"),
        /// whether strangers are given less time when three quarters of `connections` are taken
        pressure: bool = value(FLAG).or("true"),
    }
}

section! {
    /// `listeners[].limits`: those of one listener.
    #[derive(Debug, Clone, PartialEq)]
    pub struct ListenerLimits {
        /// connections at once, on this listener
        connections: Option<usize> = value(QUANTITY_OR_NONE).or("none").example("10000"),
        /// connections at once by player address, as the PROXY header tells it; IPv6 counts by /64
        connections_per_address: Option<usize> = value(QUANTITY_OR_NONE).or("none").example("20"),
        /// new connections by player address, as the PROXY header tells it; IPv6 counts by /64
        rate_per_address: Option<Quota> = value(RATE_OR_NONE).or("none").example("20/10s"),
        /// whether, where `connections` is reached, the address with the most of them gives one up for a player who has fewer
        fair_share: bool = value(FLAG).or("true"),
        /// whether strangers are given less time when three quarters of `connections` are taken
        pressure: bool = value(FLAG).or("true"),
        /// whether a connection that is refused here is reset (RST), rather than closed (FIN)
        reset: bool = value(FLAG).or("false"),
    }
}
