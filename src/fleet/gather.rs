//! The signs of all edges, gathered once a round.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use tokio::task::JoinSet;
use tokio::time::{timeout, timeout_at};

use super::{EdgeEvidence, EdgeProbe, Fleet, FleetError};
use crate::admin::api::{ApiErrorKind, MAX_VISITS, ProbeRequest, Probed, TrafficView, VisitedEdge};
use crate::connection::{EdgeRegistry, EdgeSnapshot};
use crate::metrics::Metrics;
use crate::relay::{LinkSigns, RelayShared};

/// The time for one visit of an edge at another.
pub const VISIT_WITHIN: Duration = Duration::from_millis(1500);
/// The time for all that edges are asked in a round.
pub const ROUND_WITHIN: Duration = Duration::from_millis(2200);
/// The time between questions for the traffic of an edge.
pub const TRAFFIC_EVERY: Duration = Duration::from_secs(60);

/// The results of visits, as metrics have them.
const PROBE_OK: &str = "ok";
/// See [`PROBE_OK`].
const PROBE_FAILED: &str = "failed";

/// The way in which the traffic of an edge is counted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrafficCount {
    /// The first day of its month, in UTC, as in `2026-11-05`.
    pub since: String,
    /// True if only that counts which the host sends.
    pub out_alone: bool,
}

/// The gatherer of signs, for the one task that judges edges.
pub struct EvidenceGatherer {
    registry: Arc<EdgeRegistry>,
    relay: Arc<RelayShared>,
    /// The way to ask the edges; without a tunnel there is none.
    fleet: Option<Fleet>,
    metrics: Arc<Metrics>,
    /// Edges whose program knows no visits, with the time since when they were there as they said so.
    no_visitors: HashMap<Arc<str>, SystemTime>,
    traffic: HashMap<Arc<str>, KnownTraffic>,
    /// The labels of visits that metrics have.
    shown: HashSet<(Arc<str>, Arc<str>)>,
    /// The same of traffic.
    counted: HashSet<Arc<str>>,
    /// The edges of the last round.
    known: HashSet<Arc<str>>,
}

/// The traffic of an edge as it last told it.
struct KnownTraffic {
    count: TrafficCount,
    asked: Instant,
    bytes: Option<u64>,
}

/// An answer of an edge.
enum Answer {
    Visits(Arc<str>, Result<Probed, FleetError>),
    Traffic(Arc<str>, Result<TrafficView, FleetError>),
}

impl EvidenceGatherer {
    /// Returns one for the edges of `registry`, which are asked over `fleet`, and the links of `relay`. It shows visits and
    /// traffic in `metrics`, which are no worker's.
    pub fn new(
        registry: Arc<EdgeRegistry>,
        relay: Arc<RelayShared>,
        fleet: Option<Fleet>,
        metrics: Arc<Metrics>,
    ) -> Self {
        let (no_visitors, traffic) = (HashMap::new(), HashMap::new());
        let (shown, counted, known) = (HashSet::new(), HashSet::new(), HashSet::new());
        Self { registry, relay, fleet, metrics, no_visitors, traffic, shown, counted, known }
    }

    /// Ends a round: returns the signs of each edge since the last one, within [`ROUND_WITHIN`] and a little, whatever edges
    /// do. `counts` has the edges whose traffic counts.
    pub async fn round(&mut self, counts: &HashMap<Arc<str>, TrafficCount>) -> HashMap<Arc<str>, EdgeEvidence> {
        let edges = self.registry.snapshot();
        let public: Vec<_> =
            self.registry.standings().borrow().iter().map(|at| (Arc::clone(&at.name), at.public.clone())).collect();
        let relay = Arc::clone(&self.relay);
        let signs = timeout(ROUND_WITHIN, relay.end_round());
        let asked = self.ask(&edges, public, counts);
        let (signs, answers) = tokio::join!(signs, asked);
        let mut evidence = evidence(&edges, signs.unwrap_or_default(), self.fleet.is_some());
        let since = |edge: &Arc<str>| edges.iter().find(|known| known.name == *edge).and_then(|known| known.since);
        for answer in answers {
            match answer {
                (targets, Answer::Visits(from, Ok(probed))) => add_visits(&mut evidence, &from, &targets, &probed),
                (_, Answer::Visits(from, Err(FleetError::Refused(error)))) if error.kind == ApiErrorKind::NotFound => {
                    if let Some(since) = since(&from) {
                        self.no_visitors.insert(from, since);
                    }
                }
                (_, Answer::Traffic(edge, Ok(told))) => {
                    if let Some(known) = self.traffic.get_mut(&edge) {
                        let received = if known.count.out_alone { 0 } else { told.bytes_in };
                        known.bytes = Some(told.bytes_out.saturating_add(received));
                    }
                }
                // It is asked again.
                (_, Answer::Visits(..) | Answer::Traffic(..)) => {}
            }
        }
        for (edge, known) in &self.traffic {
            if let Some(evidence) = evidence.get_mut(edge) {
                evidence.traffic = known.bytes;
            }
        }
        self.show(&evidence);
        evidence
    }

    /// Asks all edges at once for what is due.
    fn ask(
        &mut self,
        edges: &[EdgeSnapshot],
        public: Vec<(Arc<str>, otproxy_config::HostPort)>,
        counts: &HashMap<Arc<str>, TrafficCount>,
    ) -> impl Future<Output = Vec<(Vec<Arc<str>>, Answer)>> + use<> {
        self.no_visitors
            .retain(|name, since| edges.iter().any(|edge| edge.name == *name && edge.since == Some(*since)));
        self.traffic.retain(|name, known| counts.get(name) == Some(&known.count));
        let now = Instant::now();
        let mut asking: JoinSet<(Vec<Arc<str>>, Answer)> = JoinSet::new();
        let there = edges.iter().filter(|edge| !edge.revoked && !edge.trunks.is_empty());
        for (fleet, name) in self.fleet.iter().flat_map(|fleet| there.clone().map(move |edge| (fleet, &edge.name))) {
            let others: Vec<_> = public.iter().filter(|(other, _)| other != name).take(MAX_VISITS).cloned().collect();
            if !others.is_empty() && !self.no_visitors.contains_key(name) {
                let (fleet, from) = (fleet.clone(), Arc::clone(name));
                let (names, addresses): (Vec<_>, Vec<_>) = others.into_iter().unzip();
                let edges = addresses.into_iter().map(|at| VisitedEdge { host: at.host, port: at.port }).collect();
                let within_ms = u32::try_from(VISIT_WITHIN.as_millis()).unwrap_or(u32::MAX);
                let request = ProbeRequest { edges, within_ms };
                asking.spawn(async move {
                    let answer = fleet.act(&from, "/probe", &request).await;
                    (names, Answer::Visits(from, answer))
                });
            }
            let due = |known: &KnownTraffic| now.saturating_duration_since(known.asked) >= TRAFFIC_EVERY;
            if let Some(count) = counts.get(name)
                && self.traffic.get(name).is_none_or(due)
            {
                let bytes = self.traffic.get(name).and_then(|known| known.bytes);
                self.traffic.insert(Arc::clone(name), KnownTraffic { count: count.clone(), asked: now, bytes });
                let (fleet, edge, since) = (fleet.clone(), Arc::clone(name), count.since.clone());
                asking.spawn(async move {
                    let answer = fleet.see(&edge, &format!("/traffic?since={since}")).await;
                    (Vec::new(), Answer::Traffic(edge, answer))
                });
            }
        }
        let end = tokio::time::Instant::now() + ROUND_WITHIN;
        async move {
            let mut answers = Vec::new();
            // Questions without an answer by then are dropped with it.
            while let Ok(Some(answer)) = timeout_at(end, asking.join_next()).await {
                answers.extend(answer.ok());
            }
            answers
        }
    }

    fn show(&mut self, evidence: &HashMap<Arc<str>, EdgeEvidence>) {
        let (mut shown, mut counted) = (HashSet::new(), HashSet::new());
        let rtt = &self.metrics.edge_probe_rtt;
        for (edge, found) in evidence {
            for EdgeProbe { from, round_trip } in &found.probes {
                let result = if round_trip.is_some() { PROBE_OK } else { PROBE_FAILED };
                self.metrics.edge_probes.with_label_values(&[&**edge, result]).inc();
                if let Some(round_trip) = round_trip {
                    rtt.with_label_values(&[&**edge, from]).set(round_trip.as_secs_f64());
                    shown.insert((Arc::clone(edge), Arc::clone(from)));
                }
            }
            if let Some(bytes) = found.traffic {
                let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
                self.metrics.edge_traffic_month_bytes.with_label_values(&[&**edge]).set(bytes);
                counted.insert(Arc::clone(edge));
            }
        }
        for (edge, from) in self.shown.difference(&shown) {
            let _ = rtt.remove_label_values(&[&**edge, &**from]);
        }
        for edge in self.counted.difference(&counted) {
            let _ = self.metrics.edge_traffic_month_bytes.remove_label_values(&[&**edge]);
        }
        for gone in self.known.iter().filter(|edge| !evidence.contains_key(*edge)) {
            for result in [PROBE_OK, PROBE_FAILED] {
                // One that was never visited has none.
                let _ = self.metrics.edge_probes.remove_label_values(&[&**gone, result]);
            }
        }
        (self.shown, self.counted, self.known) = (shown, counted, evidence.keys().cloned().collect());
    }
}

/// Returns what is known here of each edge that is configured.
fn evidence(
    edges: &[EdgeSnapshot],
    mut signs: HashMap<Arc<str>, LinkSigns>,
    tunnel: bool,
) -> HashMap<Arc<str>, EdgeEvidence> {
    let of = |edge: &EdgeSnapshot| {
        let signs = signs.remove(&edge.name).unwrap_or_default();
        let round_trip = signs.middle();
        let LinkSigns { links, heard, lost, round_trips: _ } = signs;
        let found = EdgeEvidence {
            trunks: tunnel.then_some(edge.trunks.len()),
            trunk_round_trip: edge.trunks.iter().filter_map(|trunk| trunk.round_trip).min(),
            links,
            heard,
            lost,
            round_trip,
            ..EdgeEvidence::default()
        };
        (Arc::clone(&edge.name), found)
    };
    edges.iter().map(of).collect()
}

/// Adds what an edge found at others, which it visited in this order.
fn add_visits(evidence: &mut HashMap<Arc<str>, EdgeEvidence>, from: &Arc<str>, targets: &[Arc<str>], probed: &Probed) {
    // An edge may say anything, as it may be in wrong hands.
    for (target, visit) in targets.iter().zip(&probed.edges) {
        let told = visit.round_trip_seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
        let round_trip = told.filter(|told| *told <= VISIT_WITHIN);
        if let Some(evidence) = evidence.get_mut(target) {
            evidence.probes.push(EdgeProbe { from: Arc::clone(from), round_trip });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::api::Visit;

    fn edge(name: &str) -> EdgeSnapshot {
        EdgeSnapshot {
            name: name.into(),
            revoked: false,
            public: None,
            addresses: Vec::new(),
            trunks: Vec::new(),
            since: None,
            certificate: None,
            error: None,
        }
    }

    #[test]
    fn edges_without_links_have_signs_as_well() {
        let trips = [30, 10, 20].map(Duration::from_millis).to_vec();
        let signs = LinkSigns { links: 3, heard: 2, lost: 1, round_trips: trips };
        let of_others = [("waw1".into(), signs.clone()), ("other".into(), signs)].into();
        let found = evidence(&[edge("waw1"), edge("fra1")], of_others, true);
        let empty = EdgeEvidence { trunks: Some(0), ..EdgeEvidence::default() };
        let round_trip = Some(Duration::from_millis(20));
        assert_eq!(found["waw1"], EdgeEvidence { links: 3, heard: 2, lost: 1, round_trip, ..empty.clone() });
        assert_eq!(found["fra1"], empty);
        assert_eq!(found.len(), 2);
        assert_eq!(evidence(&[edge("waw1")], HashMap::new(), false)["waw1"], EdgeEvidence::default());
    }

    #[test]
    fn what_an_edge_says_of_others_is_taken_as_far_as_it_can_be_true() {
        let mut found = evidence(&[edge("waw1"), edge("fra1")], HashMap::new(), true);
        let visit = |round_trip_seconds| Visit { round_trip_seconds, error: None };
        let probed = Probed { edges: vec![visit(Some(0.02)), visit(Some(-1.0)), visit(Some(0.03)), visit(None)] };
        add_visits(&mut found, &"ams1".into(), &["waw1".into(), "fra1".into(), "gone".into()], &probed);
        let probe = |round_trip| EdgeProbe { from: "ams1".into(), round_trip };
        assert_eq!(found["waw1"].probes, [probe(Some(Duration::from_millis(20)))]);
        assert_eq!(found["fra1"].probes, [probe(None)]);
        for wrong in [f64::NAN, f64::INFINITY, 1e300, 2.0] {
            let mut found = evidence(&[edge("waw1")], HashMap::new(), true);
            add_visits(&mut found, &"a".into(), &["waw1".into()], &Probed { edges: vec![visit(Some(wrong))] });
            assert_eq!(found["waw1"].probes[0].round_trip, None, "{wrong}");
        }
    }
}
