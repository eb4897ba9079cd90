//! The keeper of a core's edges: judges them each few seconds, and has clients told of those that are to be used.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use parking_lot::Mutex;
use tokio::task::spawn_blocking;
use tokio::time::sleep_until;
use tracing::{info, warn};

use super::engine::{EdgeState, EdgeVerdict, FleetEngine};
use super::evidence::EdgeEvidence;
use super::gather::{EvidenceGatherer, TrafficCount};
use super::orders::{EdgeOrders, GivenOrder};
use crate::admin::api::EdgeOrder;
use crate::connection::EdgeRegistry;
use crate::events::{EventLog, Happening};
use crate::metrics::Metrics;
use crate::state::{StateDir, StateError};
use otproxy_config::{CountedTraffic, EdgePeer, EdgeTraffic, FleetConfig};

/// The file of the words of operators.
const ORDERS: &str = "core-edges.json";

/// Knowledge of an edge now, and what is decided of it.
#[derive(Debug, Clone)]
pub struct EdgeReport {
    /// The judgement.
    pub verdict: EdgeVerdict,
    /// The time from which on it is in its state.
    pub since: SystemTime,
    /// The word of an operator on it.
    pub order: Option<GivenOrder>,
    /// The signs of the last round.
    pub evidence: EdgeEvidence,
    /// The traffic that its provider allows.
    pub traffic: Option<EdgeTraffic>,
}

/// The keeper of the edges of a core.
#[derive(Debug)]
pub struct FleetKeeper {
    registry: Arc<EdgeRegistry>,
    metrics: Arc<Metrics>,
    events: Arc<EventLog>,
    state: Mutex<Kept>,
    /// The place of the words of operators.
    folder: StateDir,
    /// Held while they are written there, so that the last ones are the last.
    writing: Mutex<()>,
}

/// Returns the edges whose traffic counts, and from which day on.
fn counts<'p>(peers: impl Iterator<Item = &'p EdgePeer>, today: Date) -> HashMap<Arc<str>, TrafficCount> {
    let count = |peer: &EdgePeer| {
        let EdgeTraffic { count, day, .. } = peer.traffic?;
        let since = month_began(today, day).to_string();
        Some((peer.name.as_str().into(), TrafficCount { since, out_alone: count == CountedTraffic::Out }))
    };
    peers.filter_map(count).collect()
}

/// Returns the last day of a bill's month that is `day`, one that each month has.
fn month_began(today: Date, day: u8) -> Date {
    let day = i8::try_from(day).unwrap_or(1);
    let month = if today.day() >= day { today } else { today.first_of_month().yesterday().unwrap_or(today) };
    month.with().day(day).build().unwrap_or(today)
}

#[derive(Debug)]
struct Kept {
    engine: FleetEngine,
    every: Duration,
    orders: EdgeOrders,
    evidence: HashMap<Arc<str>, EdgeEvidence>,
    /// The states that the log and the metrics have told last.
    told: HashMap<Arc<str>, EdgeState>,
}

impl Kept {
    /// Has the engine go by the words of operators that hold.
    fn obey(&mut self, now: Instant) {
        let names: Vec<_> = self.engine.peers().map(|peer| peer.name.clone()).collect();
        for name in names {
            self.engine.order(&name, self.orders.on(&name).map(|given| given.order == EdgeOrder::In), now);
        }
    }
}

impl FleetKeeper {
    /// Makes the keeper of the edges of `registry`, of which there are none yet. The words of operators from before are read from `folder`.
    pub fn new(
        registry: Arc<EdgeRegistry>,
        metrics: Arc<Metrics>,
        events: Arc<EventLog>,
        folder: StateDir,
    ) -> Arc<Self> {
        let config = FleetConfig { every: Duration::from_secs(1), fall: 1, rise: 1, min_edges: 1 };
        let state = Kept {
            engine: FleetEngine::new(&config, &[], Instant::now()),
            every: config.every,
            orders: folder.read(ORDERS).unwrap_or_default(),
            evidence: HashMap::new(),
            told: HashMap::new(),
        };
        Arc::new(Self { registry, metrics, events, state: Mutex::new(state), folder, writing: Mutex::default() })
    }

    /// Keeps exactly these edges from now on, which the registry knows already. Knowledge of those that stay is kept.
    pub fn set(&self, config: &FleetConfig, peers: &[EdgePeer]) {
        let (mut state, now) = (self.state.lock(), Instant::now());
        state.engine.set(config, peers, now);
        state.every = config.every;
        state.obey(now);
        self.conclude(&mut state);
    }

    /// Looks at all edges each `fleet.every`, and judges them; never returns.
    pub async fn run(self: Arc<Self>, mut gatherer: EvidenceGatherer) {
        loop {
            let (every, counts) = {
                let state = self.state.lock();
                (state.every, counts(state.engine.peers(), TimeZone::UTC.to_datetime(Timestamp::now()).date()))
            };
            let next = tokio::time::Instant::now() + every;
            if self.round(gatherer.round(&counts).await) {
                let keeper = Arc::clone(&self);
                if let Ok(Err(error)) = spawn_blocking(move || keeper.keep_orders()).await {
                    warn!(%error, "what holds no more of operators' words on edges is there again after a restart");
                }
            }
            sleep_until(next).await;
        }
    }

    /// Judges all edges by the evidence of a round. Returns whether some word of an operator holds no more.
    pub fn round(&self, evidence: HashMap<Arc<str>, EdgeEvidence>) -> bool {
        let (mut state, now) = (self.state.lock(), Instant::now());
        let expired = state.orders.expire(SystemTime::now());
        if expired {
            state.obey(now);
        }
        state.engine.round(&evidence, now);
        state.evidence = evidence;
        self.conclude(&mut state);
        expired
    }

    /// Keeps the words of operators for the next start. It writes a file.
    ///
    /// # Errors
    /// Returns the reason why it could not; they hold all the same, until the process ends.
    pub fn keep_orders(&self) -> Result<(), StateError> {
        let _turn = self.writing.lock();
        let orders = self.state.lock().orders.clone();
        self.folder.write(ORDERS, &orders)
    }

    /// Reads the words of operators again, as another process has kept them until now. It reads a file.
    pub fn recall_orders(&self) {
        let orders = self.folder.read(ORDERS).unwrap_or_default();
        let mut state = self.state.lock();
        state.orders = orders;
        state.obey(Instant::now());
        self.conclude(&mut state);
    }

    /// Goes by the word of an operator on an edge.
    pub fn order(&self, edge: &str, given: GivenOrder) {
        let (mut state, now) = (self.state.lock(), Instant::now());
        let (order, why) = (given.order, given.why.clone());
        state.orders.give(edge, given);
        state.obey(now);
        info!(edge, %order, why, "an operator has decided about an edge");
        self.conclude(&mut state);
    }

    /// Returns what is known of all edges, in the order of the file.
    pub fn reports(&self) -> Vec<EdgeReport> {
        let (state, now, clock) = (self.state.lock(), Instant::now(), SystemTime::now());
        let report = |verdict: EdgeVerdict| EdgeReport {
            since: clock.checked_sub(now.saturating_duration_since(verdict.since)).unwrap_or(clock),
            order: state.orders.on(&verdict.name).cloned(),
            evidence: state.evidence.get(&verdict.name).cloned().unwrap_or_default(),
            traffic: state.engine.peers().find(|peer| *peer.name == *verdict.name).and_then(|peer| peer.traffic),
            verdict,
        };
        state.engine.verdicts().map(report).collect()
    }

    /// Has clients told of what is decided, and the log and the metrics say what is new.
    fn conclude(&self, state: &mut Kept) {
        let verdicts: Vec<_> = state.engine.verdicts().collect();
        let decided = verdicts.iter().map(|verdict| (Arc::clone(&verdict.name), verdict.decision)).collect();
        self.registry.decide(&decided);
        let mut before = std::mem::take(&mut state.told);
        for EdgeVerdict { name, state: now, cause, decision, .. } in verdicts {
            let was = before.remove(&name);
            for each in EdgeState::ALL {
                let labels = [&*name, each.as_str()];
                self.metrics.edge_state.with_label_values(&labels).set((*each == now).into());
            }
            self.metrics.edge_listed.with_label_values(&[&*name]).set(decision.listed.into());
            let (edge, listed, priority) = (&*name, decision.listed, decision.priority);
            if was.unwrap_or(EdgeState::Up) != now {
                let (state, cause) = (now.as_str(), cause.as_str());
                self.events.emit(Happening::EdgeState { edge: Arc::clone(&name), state, cause, listed });
            }
            match was {
                Some(was) if was == now => {}
                None if now == EdgeState::Up => {}
                _ if now == EdgeState::Up => info!(edge, listed, priority, "an edge is well again"),
                _ => warn!(edge, state = %now, %cause, listed, priority, "an edge is not well"),
            }
            state.told.insert(name, now);
        }
        for gone in before.into_keys() {
            for each in EdgeState::ALL {
                // Series that are gone already need no removal.
                let _ = self.metrics.edge_state.remove_label_values(&[&*gone, each.as_str()]);
            }
            let _ = self.metrics.edge_listed.remove_label_values(&[&*gone]);
        }
    }
}

#[cfg(test)]
mod tests {
    use jiff::civil::date;

    use super::*;
    use otproxy_config as config;
    use otproxy_config::Config;

    /// Returns the fleet and the edges of a core, of which the first has this beside its name.
    fn edges(first: &str) -> (FleetConfig, Vec<EdgePeer>) {
        let text = format!(
            "role: core\nedges: [{{ name: waw1, address: 192.0.2.1{first} }}, {{ name: fra1, address: 192.0.2.2 }}]\n\
             listeners: [{{ name: l, kind: relay, listen: '127.0.0.1:1' }}]\n\
             game_servers: [{{ port: 1, address: '127.0.0.1:1' }}]\n"
        );
        let Config::Core(core) = config::parse("core.yaml", &text).unwrap() else { panic!("a core") };
        (core.fleet, core.edges)
    }

    #[test]
    fn each_new_state_of_an_edge_is_an_event_and_the_same_one_is_none() {
        let events = Arc::<EventLog>::default();
        let (registry, metrics) = (Arc::default(), Arc::new(Metrics::new()));
        let keeper = FleetKeeper::new(registry, metrics, Arc::clone(&events), StateDir::new(None));
        for first in ["", "", ", disabled: true", ", disabled: true", ""] {
            let (fleet, peers) = edges(first);
            keeper.set(&fleet, &peers);
        }
        let told: Vec<_> = events.after(0, 10).iter().map(|event| event.what.to_string()).collect();
        let not_told = ", and clients are not told of it";
        assert_eq!(
            told,
            [format!("edge waw1 is out (disabled){not_told}"), format!("edge waw1 is well again{not_told}")]
        );
    }

    #[test]
    fn a_month_begins_with_the_day_of_the_bill() {
        for (today, day, began) in [
            (date(2026, 11, 28), 1, date(2026, 11, 1)),
            (date(2026, 11, 28), 28, date(2026, 11, 28)),
            (date(2026, 11, 4), 5, date(2026, 10, 5)),
            (date(2026, 1, 1), 28, date(2025, 12, 28)),
            (date(2028, 3, 1), 28, date(2028, 2, 28)),
        ] {
            assert_eq!(month_began(today, day), began, "{today}, {day}");
        }
    }
}
