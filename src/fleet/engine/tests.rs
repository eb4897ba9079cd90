use otproxy_config::{CountedTraffic, EdgeTraffic, HostPort};
use proptest::prelude::*;

use super::*;
use crate::fleet::evidence::EdgeProbe;

const ROUND: Duration = Duration::from_secs(3);
const NAMES: [&str; 4] = ["waw1", "fra1", "lon1", "rsv1"];

fn config() -> FleetConfig {
    FleetConfig { every: ROUND, fall: 3, rise: 10, min_edges: 1 }
}

fn peer(name: &str) -> EdgePeer {
    EdgePeer {
        name: name.to_owned(),
        addresses: Vec::new(),
        dial: None,
        public: Some(HostPort { host: format!("{name}.example"), port: 7162 }),
        priority: 0,
        priority_under_attack: None,
        reserve: name.starts_with("rsv"),
        datacenter: None,
        traffic: None,
        disabled: false,
        revoked: false,
    }
}

/// The edges, and the evidence of the next round.
struct Fleet {
    engine: FleetEngine,
    peers: Vec<EdgePeer>,
    evidence: HashMap<Arc<str>, EdgeEvidence>,
    start: Instant,
    now: Instant,
}

impl Fleet {
    fn new(config: &FleetConfig, names: &[&str]) -> Self {
        let (start, peers) = (Instant::now(), names.iter().map(|name| peer(name)).collect::<Vec<_>>());
        let engine = FleetEngine::new(config, &peers, start);
        let mut fleet = Self { engine, peers, evidence: HashMap::new(), start, now: start };
        names.iter().for_each(|name| fleet.is_well(name));
        fleet
    }

    fn seen(&mut self, name: &str) -> &mut EdgeEvidence {
        self.evidence.get_mut(name).unwrap()
    }

    fn probes(&self, name: &str, round_trip: Option<u64>) -> Vec<EdgeProbe> {
        let others = self.peers.iter().filter(|peer| peer.name != *name);
        let probe = |peer: &EdgePeer| EdgeProbe {
            from: peer.name.as_str().into(),
            round_trip: round_trip.map(Duration::from_millis),
        };
        others.map(probe).collect()
    }

    fn is_well(&mut self, name: &str) {
        let (round_trip, probes) = (Some(Duration::from_millis(40)), self.probes(name, Some(30)));
        let seen =
            EdgeEvidence { trunks: Some(4), links: 20, heard: 20, round_trip, probes, ..EdgeEvidence::default() };
        self.evidence.insert(name.into(), seen);
    }

    /// Nothing gets to its public side.
    fn is_cut(&mut self, name: &str) {
        let probes = self.probes(name, None);
        self.evidence
            .insert(name.into(), EdgeEvidence { trunks: Some(4), links: 20, probes, ..EdgeEvidence::default() });
        for other in NAMES {
            if let Some(seen) = self.evidence.get_mut(other) {
                seen.probes.iter_mut().filter(|probe| *probe.from == *name).for_each(|probe| probe.round_trip = None);
            }
        }
    }

    fn round(&mut self) {
        self.now += ROUND;
        self.engine.round(&self.evidence, self.now);
    }

    fn rounds(&mut self, count: u32) {
        (0..count).for_each(|_| self.round());
    }

    /// Returns the rounds until an edge is in that state.
    fn until(&mut self, name: &str, state: EdgeState) -> u32 {
        for count in 0..10_000 {
            if self.verdict(name).state == state {
                return count;
            }
            self.round();
        }
        panic!("{name} never is {state}");
    }

    fn verdict(&self, name: &str) -> EdgeVerdict {
        self.engine.verdicts().find(|verdict| *verdict.name == *name).unwrap()
    }

    fn listed(&self) -> Vec<String> {
        let listed = self.engine.verdicts().filter(|verdict| verdict.decision.listed);
        listed.map(|verdict| verdict.name.to_string()).collect()
    }

    fn set(&mut self, change: impl Fn(&mut EdgePeer)) {
        self.peers.iter_mut().for_each(change);
        self.engine.set(&config(), &self.peers, self.now);
    }
}

#[test]
fn one_whose_public_side_is_cut_is_out_within_15_seconds_and_back_after_rise() {
    let mut fleet = Fleet::new(&config(), &["waw1", "fra1", "lon1"]);
    fleet.rounds(100);
    fleet.is_cut("waw1");
    let out = fleet.until("waw1", EdgeState::Out);
    // The cut comes right behind a round, and the next one may still hear something.
    assert!((out + 2) * ROUND <= Duration::from_secs(15), "{out} rounds");
    assert_eq!(
        (fleet.verdict("waw1").cause, fleet.listed()),
        (EdgeCause::Unreachable, vec!["fra1".to_owned(), "lon1".to_owned()])
    );
    fleet.rounds(40);
    for name in ["waw1", "fra1", "lon1"] {
        fleet.is_well(name);
    }
    assert_eq!(fleet.until("waw1", EdgeState::Up), 10, "as it has been out for longer than a minute");
    assert_eq!(fleet.listed().len(), 3);
}

#[test]
fn one_without_a_trunk_is_out_but_not_while_it_is_only_expected() {
    let mut fleet = Fleet::new(&config(), &["waw1", "fra1"]);
    fleet.seen("waw1").trunks = Some(0);
    let rounds = fleet.until("waw1", EdgeState::Out);
    assert!(rounds * ROUND >= GRACE, "{rounds}: it never came");
    assert_eq!(fleet.verdict("waw1").cause, EdgeCause::NoTrunk);
    fleet.is_well("waw1");
    fleet.until("waw1", EdgeState::Up);
    fleet.rounds(20);
    fleet.seen("waw1").trunks = Some(0);
    assert_eq!(fleet.until("waw1", EdgeState::Out), 3);
}

#[test]
fn when_all_look_bad_the_list_stays_and_the_last_one_never_goes() {
    let mut fleet = Fleet::new(&config(), &["waw1", "fra1", "lon1"]);
    fleet.rounds(100);
    for name in ["waw1", "fra1", "lon1"] {
        fleet.is_cut(name);
    }
    fleet.rounds(1000);
    assert_eq!(fleet.listed().len(), 3);
    fleet.is_well("lon1");
    fleet.rounds(100);
    assert_eq!(fleet.listed(), ["lon1"]);
    fleet.is_cut("lon1");
    fleet.rounds(1000);
    assert_eq!(fleet.listed(), ["lon1"]);
}

#[test]
fn one_that_loses_links_is_hit_and_costs_more_until_it_is_quiet() {
    let mut fleet = Fleet::new(&config(), &["waw1", "fra1"]);
    fleet.rounds(10);
    fleet.seen("waw1").lost = 10;
    fleet.round();
    let hit = fleet.verdict("waw1");
    assert_eq!(
        (hit.state, hit.cause, hit.decision),
        (EdgeState::Hit, EdgeCause::LinksLost, EdgeDecision { listed: true, priority: 100 })
    );
    fleet.seen("waw1").lost = 0;
    let quiet = fleet.until("waw1", EdgeState::Up) * ROUND;
    assert!(quiet >= QUIET && quiet <= QUIET + WINDOW + ROUND, "{quiet:?}");
    assert_eq!(fleet.verdict("waw1").decision.priority, 100, "clients would make its link anew");
    fleet.rounds(100);
    assert_eq!(fleet.verdict("waw1").decision.priority, 0);
    fleet.set(|peer| peer.priority_under_attack = Some(500));
    fleet.seen("waw1").lost = 10;
    fleet.round();
    assert_eq!(fleet.verdict("waw1").decision.priority, 500);
}

#[test]
fn one_that_is_slower_than_it_is_at_other_times_costs_the_difference_in_steps() {
    let mut fleet = Fleet::new(&config(), &["waw1", "fra1"]);
    fleet.seen("fra1").round_trip = Some(Duration::from_millis(300));
    fleet.rounds(100);
    assert_eq!(fleet.verdict("fra1").state, EdgeState::Up, "players from afar are no fault");
    fleet.seen("waw1").round_trip = Some(Duration::from_millis(140));
    fleet.rounds(20);
    assert_eq!(fleet.verdict("waw1").state, EdgeState::Up, "other edges find it as before: other players came");
    fleet.seen("waw1").probes = fleet.probes("waw1", Some(97));
    fleet.until("waw1", EdgeState::Slow);
    fleet.rounds(3);
    let slow = fleet.verdict("waw1");
    assert_eq!((slow.cause, slow.decision.listed), (EdgeCause::RoundTrips, true));
    assert!(
        (30..=60).contains(&slow.decision.priority) && slow.decision.priority.is_multiple_of(PRIORITY_STEP),
        "{slow:?}"
    );
    fleet.is_well("waw1");
    fleet.until("waw1", EdgeState::Up);
    fleet.rounds(100);
    assert_eq!(fleet.verdict("waw1").decision.priority, 0);
}

#[test]
fn the_word_of_an_operator_is_stronger_than_the_evidence_and_the_file_stronger_than_that() {
    let mut fleet = Fleet::new(&config(), &["waw1", "fra1"]);
    fleet.rounds(10);
    fleet.engine.order("waw1", Some(false), fleet.now);
    assert_eq!((fleet.verdict("waw1").cause, fleet.listed()), (EdgeCause::Operator, vec!["fra1".to_owned()]));
    fleet.engine.order("fra1", Some(false), fleet.now);
    assert_eq!(fleet.listed(), [""; 0], "nothing else keeps what an operator took out");
    fleet.engine.order("waw1", Some(true), fleet.now);
    fleet.is_cut("waw1");
    fleet.rounds(100);
    assert_eq!(fleet.listed(), ["waw1"]);
    fleet.engine.order("waw1", None, fleet.now);
    fleet.engine.order("fra1", None, fleet.now);
    fleet.rounds(100);
    assert_eq!(fleet.listed(), ["fra1"]);
    fleet.engine.order("waw1", Some(true), fleet.now);
    fleet.set(|peer| peer.disabled = peer.name == "waw1");
    assert_eq!((fleet.verdict("waw1").cause, fleet.listed()), (EdgeCause::Disabled, vec!["fra1".to_owned()]));
    fleet.set(|peer| (peer.disabled, peer.revoked) = (false, peer.name == "fra1"));
    assert_eq!(fleet.listed(), ["waw1"]);
    assert_eq!(fleet.verdict("fra1").cause, EdgeCause::Revoked);
}

#[test]
fn a_reserve_is_told_of_while_another_is_out_or_hit() {
    let mut fleet = Fleet::new(&config(), &["waw1", "rsv1", "fra1", "rsv2"]);
    fleet.rounds(10);
    assert_eq!(fleet.listed(), ["waw1", "fra1"]);
    fleet.seen("waw1").lost = 10;
    fleet.round();
    assert_eq!(fleet.listed(), ["waw1", "rsv1", "fra1"]);
    fleet.engine.order("fra1", Some(false), fleet.now);
    assert_eq!(fleet.listed(), ["waw1", "rsv1", "rsv2"]);
    fleet.engine.order("rsv1", Some(false), fleet.now);
    assert_eq!(fleet.listed(), ["waw1", "rsv2"]);
    // An edge that the file takes out has not fallen.
    fleet.engine.order("fra1", None, fleet.now);
    fleet.engine.order("rsv1", None, fleet.now);
    fleet.set(|peer| peer.disabled = peer.name == "fra1");
    assert_eq!(fleet.listed(), ["waw1", "rsv1"]);
}

#[test]
fn the_traffic_of_a_month_sets_an_edge_back_and_then_takes_it_out() {
    let mut fleet = Fleet::new(&config(), &["waw1", "fra1"]);
    let traffic = EdgeTraffic { month: 1000, soft: 80, count: CountedTraffic::Both, day: 1 };
    fleet.set(|peer| peer.traffic = (peer.name == "waw1").then_some(traffic));
    let mut told = |bytes| {
        fleet.seen("waw1").traffic = bytes;
        fleet.rounds(120);
        let EdgeVerdict { state, cause, decision, .. } = fleet.verdict("waw1");
        (state, cause, decision.listed, decision.priority)
    };
    assert_eq!(told(Some(799)), (EdgeState::Up, EdgeCause::Fine, true, 0));
    assert_eq!(told(Some(800)), (EdgeState::Up, EdgeCause::Fine, true, SOFT_TRAFFIC));
    assert_eq!(told(Some(1000)), (EdgeState::Out, EdgeCause::Traffic, false, SOFT_TRAFFIC));
    assert_eq!(told(None).0, EdgeState::Out, "what is not known is as before");
    assert_eq!(told(Some(1)), (EdgeState::Up, EdgeCause::Fine, true, 0), "the next month");
}

#[test]
fn a_reload_keeps_what_is_known() {
    let mut fleet = Fleet::new(&config(), &["waw1", "fra1"]);
    fleet.rounds(10);
    fleet.is_cut("waw1");
    fleet.until("waw1", EdgeState::Out);
    let before = fleet.verdict("waw1");
    fleet.set(|peer| peer.priority = 40);
    assert_eq!(fleet.verdict("waw1").since, before.since);
    assert_eq!(fleet.listed(), ["fra1"]);
    assert_eq!(fleet.verdict("fra1").decision.priority, 40, "what the file says is told at once");
    fleet.peers.remove(0);
    fleet.set(|_| ());
    fleet.peers.push(peer("waw1"));
    fleet.set(|_| ());
    assert_eq!(fleet.listed(), ["fra1", "waw1"], "it is a new one");
}

#[test]
fn at_least_min_edges_are_told_of_the_least_bad_first() {
    let config = FleetConfig { min_edges: 2, ..config() };
    let mut fleet = Fleet::new(&config, &["waw1", "fra1", "lon1"]);
    fleet.rounds(10);
    fleet.is_cut("waw1");
    fleet.rounds(100);
    assert_eq!(fleet.listed(), ["fra1", "lon1"]);
    fleet.seen("fra1").trunks = Some(0);
    fleet.rounds(100);
    assert_eq!(
        (fleet.verdict("fra1").cause, fleet.listed()),
        (EdgeCause::NoTrunk, vec!["fra1".to_owned(), "lon1".to_owned()])
    );
}

/// Returns something that happens to an edge in a round.
fn what() -> impl Strategy<Value = u8> {
    prop_oneof![6 => Just(0_u8), 2 => Just(1), 1 => 2..7_u8]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever is seen for hours: clients always have edges, no edge changes more than once a minute, and priorities change rarely
    /// and in steps.
    #[test]
    fn whatever_is_seen(
        rounds in proptest::collection::vec(proptest::collection::vec(what(), 4), 300..1500),
        stay in 1..40_usize,
        min_edges in 1..4_usize,
    ) {
        let config = FleetConfig { min_edges, ..config() };
        let mut fleet = Fleet::new(&config, &NAMES);
        let mut changes: HashMap<String, Vec<Instant>> = HashMap::new();
        let mut told: HashMap<String, Instant> = HashMap::new();
        for (number, round) in rounds.iter().enumerate() {
            // Some waver each round, and some stay as they are for a while.
            let round = if number % 2 == 0 { round } else { &rounds[number / stay * stay % rounds.len()] };
            let before: Vec<_> = fleet.engine.verdicts().collect();
            for (name, what) in NAMES.iter().zip(round) {
                fleet.is_well(name);
                let probes = fleet.probes(name, Some(30 + u64::from(*what) * 50));
                match what {
                    2 => *fleet.seen(name) = EdgeEvidence { trunks: Some(0), ..EdgeEvidence::default() },
                    3 => fleet.seen(name).lost = 15,
                    4 => *fleet.seen(name) = EdgeEvidence::default(),
                    5 => {
                        fleet.seen(name).round_trip = Some(Duration::from_millis(290));
                        fleet.seen(name).probes = probes;
                    }
                    6 => { fleet.evidence.remove(*name); }
                    _ => {}
                }
            }
            // Cut ones come last: the probes of others know of them.
            NAMES.iter().zip(round).filter(|(_, what)| **what == 1).for_each(|(name, _)| fleet.is_cut(name));
            fleet.round();
            prop_assert!(fleet.listed().len() >= min_edges);
            for (before, now) in before.iter().zip(fleet.engine.verdicts()) {
                let name = now.name.to_string();
                if before.state != now.state {
                    let all = changes.entry(name.clone()).or_default();
                    if let Some(last) = all.last() {
                        prop_assert!(fleet.now - *last >= STATE_CHANGE, "{name} changes too soon: {before:?} {now:?}");
                    }
                    all.push(fleet.now);
                }
                let (was, is) = (before.decision.priority, now.decision.priority);
                prop_assert!(is.is_multiple_of(PRIORITY_STEP));
                if was != is {
                    let soon = told.insert(name.clone(), fleet.now).is_some_and(|last| fleet.now - last < PRIORITY_CHANGE);
                    prop_assert!(!soon || now.state == EdgeState::Hit, "{name} is told of too soon");
                }
            }
        }
        // When all is well for long, all is as the file says.
        NAMES.iter().for_each(|name| fleet.is_well(name));
        fleet.rounds(3000);
        for verdict in fleet.engine.verdicts() {
            prop_assert_eq!((verdict.state, verdict.cause, verdict.decision.priority), (EdgeState::Up, EdgeCause::Fine, 0));
        }
        prop_assert!(fleet.now > fleet.start);
    }
}
