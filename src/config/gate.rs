//! Reading what decides who may connect: `limits`, of a listener and of the whole process.

use super::formats;
use super::scope::Scope;
use crate::limits::GateLimits;

/// Reads the limits among the keys of `limits`.
pub(super) fn limits(limits: &Scope<'_>) -> Option<GateLimits> {
    let connections = limits.value("connections", formats::or_none(formats::quantity));
    let connections_per_address = limits.value("connections_per_address", formats::or_none(formats::quantity));
    let rate_per_address = limits.value("rate_per_address", formats::or_none(formats::rate));
    Some(GateLimits {
        connections: connections?,
        connections_per_address: connections_per_address?,
        rate_per_address: rate_per_address?,
    })
}
