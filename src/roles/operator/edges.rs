//! The edges, as an operator of the core sees them.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use crate::admin::api::{
    ApiError, EdgeCertificateView, EdgeErrorView, EdgeOrderView, EdgeProbeView, EdgeState, EdgeTrafficView, EdgeView,
    EdgesView, Time, TrunkView,
};
use crate::admission::ProcessAdmission;
use crate::connection::{EdgeCertificate, EdgeSnapshot, TrunkSnapshot};
use crate::fleet::{self, EdgeProbe, EdgeReport, GivenOrder};
use crate::roles::revoked::EdgeTrust;

/// The open connections of players through one edge.
#[derive(Default)]
struct Use {
    connections: u64,
    /// The edge's addresses, where they came without a tunnel.
    peers: BTreeSet<IpAddr>,
}

/// Returns all edges. `tunnel` tells whether they come through it, or by their address alone; `trust` who has them refused; `reports`
/// what is known and decided of them.
pub(super) fn edges(
    process: &ProcessAdmission,
    tunnel: bool,
    trust: &EdgeTrust,
    reports: Vec<EdgeReport>,
) -> EdgesView {
    let mut reports: HashMap<_, _> =
        reports.into_iter().map(|report| (Arc::clone(&report.verdict.name), report)).collect();
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
    let edges = known.filter_map(|edge| {
        // It is missing for a moment, in a reload.
        let report = reports.remove(&edge.name)?;
        let used = used.remove(&edge.name).unwrap_or_default();
        let by = trust.revoked_by(&edge.name).filter(|_| edge.revoked);
        Some(EdgeView { revoked_by: by, ..view(edge, used, tunnel, report) })
    });
    EdgesView { edges: edges.collect() }
}

fn view(edge: EdgeSnapshot, used: Use, tunnel: bool, report: EdgeReport) -> EdgeView {
    let EdgeSnapshot { name, public, revoked, mut addresses, trunks, since: up_since, certificate, error } = edge;
    let EdgeReport { verdict, since, order, evidence, traffic } = report;
    addresses.extend(used.peers);
    let probe = |probe: EdgeProbe| EdgeProbeView {
        from: probe.from.to_string(),
        round_trip_seconds: probe.round_trip.map(|trip| trip.as_secs_f64()),
    };
    let bytes = evidence.traffic.zip(traffic);
    EdgeView {
        name: name.to_string(),
        revoked,
        revoked_by: None,
        state: state(verdict.state),
        cause: verdict.cause.as_str().to_owned(),
        state_since: Time(since),
        public: public.map(|public| public.to_string()),
        listed: verdict.decision.listed,
        priority: verdict.decision.priority,
        order: order.map(|GivenOrder { order, since, until, why }| EdgeOrderView { order, since, until, why }),
        links: evidence.links,
        round_trip_seconds: evidence.round_trip.map(|trip| trip.as_secs_f64()),
        probes: evidence.probes.into_iter().map(probe).collect(),
        traffic: bytes.map(|(bytes, traffic)| EdgeTrafficView { bytes, month_bytes: traffic.month }),
        addresses,
        in_use: used.connections,
        trunks: tunnel.then(|| trunks.into_iter().map(trunk).collect()),
        since: up_since.map(Time),
        certificate: certificate.map(proof),
        last_error: error.map(|error| EdgeErrorView {
            time: Time(error.time),
            reason: error.reason.to_owned(),
            address: error.address,
        }),
    }
}

fn state(state: fleet::EdgeState) -> EdgeState {
    match state {
        fleet::EdgeState::Up => EdgeState::Up,
        fleet::EdgeState::Slow => EdgeState::Slow,
        fleet::EdgeState::Hit => EdgeState::Hit,
        fleet::EdgeState::Out => EdgeState::Out,
    }
}

fn trunk(trunk: TrunkSnapshot) -> TrunkView {
    let TrunkSnapshot { address, since, certificate, software, streams, bytes_in, bytes_out, round_trip } = trunk;
    TrunkView {
        address,
        since: Time(since),
        streams,
        bytes_in,
        bytes_out,
        round_trip_seconds: round_trip.map(|round_trip| round_trip.as_secs_f64()),
        version: software,
        certificate: proof(certificate),
    }
}

fn proof(EdgeCertificate { serial, until }: EdgeCertificate) -> EdgeCertificateView {
    EdgeCertificateView { serial, until: Time(until) }
}

/// Makes the refusal for an edge that is none of those that are known.
pub(super) fn no_edge(name: &str, known: &[&str]) -> ApiError {
    let remedy = match known {
        [] => "the file has no `edges`".to_owned(),
        known => format!("the edges are: {}", known.join(", ")),
    };
    ApiError::not_found(format!("there is no edge `{name}`"), remedy)
}
