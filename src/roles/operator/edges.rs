//! The edges, as an operator of the core sees them.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use crate::admin::api::{EdgeCertificateView, EdgeErrorView, EdgeView, EdgesView, Time};
use crate::admission::ProcessAdmission;
use crate::connection::EdgeSnapshot;

/// The open connections of players through one edge.
#[derive(Default)]
struct Use {
    connections: u64,
    /// The edge's addresses, where they came without a tunnel.
    peers: BTreeSet<IpAddr>,
}

/// Returns all edges. `tunnel` tells whether they come through it, or by their address alone.
pub(super) fn edges(process: &ProcessAdmission, tunnel: bool) -> EdgesView {
    let mut used: HashMap<Arc<str>, Use> = HashMap::new();
    process.registry().select(|handle| {
        if let Some(edge) = handle.edge() {
            let used = used.entry(Arc::clone(edge)).or_default();
            used.connections += 1;
            if !tunnel {
                used.peers.insert(handle.peer().ip());
            }
        }
        false
    });
    let known = process.edges().snapshot().into_iter();
    let edges = known.map(|edge| {
        let used = used.remove(&edge.name).unwrap_or_default();
        view(edge, used, tunnel)
    });
    EdgesView { edges: edges.collect() }
}

fn view(edge: EdgeSnapshot, used: Use, tunnel: bool) -> EdgeView {
    let EdgeSnapshot { name, revoked, mut addresses, spare, since, certificate, error } = edge;
    addresses.extend(used.peers);
    EdgeView {
        name: name.to_string(),
        revoked,
        addresses,
        in_use: used.connections,
        spare: tunnel.then_some(spare as u64),
        since: since.map(Time),
        certificate: certificate
            .map(|certificate| EdgeCertificateView { serial: certificate.serial, until: Time(certificate.until) }),
        last_error: error.map(|error| EdgeErrorView {
            time: Time(error.time),
            reason: error.reason.to_owned(),
            address: error.address,
        }),
    }
}
