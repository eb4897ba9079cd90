//! The judge of a core's edges: from what is seen of them, what clients are told. Pure: no I/O, and no clock of its own.
//!
//! Each round the evidence about all edges comes in. EdgeReach, losses and round trips are judged apart ([`reach`], [`losses`],
//! [`pace`]), and each judgement takes its time in both directions, so that one that wavers changes little. The word of an operator or
//! of the file is stronger than all of it, and clients are never left without edges.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use otproxy_config::{EdgePeer, FleetConfig};
use otproxy_protocol::{Word as _, words};

use self::losses::Losses;
use self::pace::Pace;
use self::reach::{EdgeReach, reach};
use super::evidence::EdgeEvidence;
use crate::connection::EdgeDecision;

mod losses;
mod pace;
mod reach;
#[cfg(test)]
mod tests;

pub use losses::{LOST_LEAST, LOST_SHARE, QUIET, WINDOW};
pub use pace::{LEAST_EXCESS, NORMAL_WITHIN, SLOW_ROUNDS};

/// The least time from one change of an edge's state to the next, as evidence has it.
pub const STATE_CHANGE: Duration = Duration::from_secs(60);
/// The least time from one change of the priority that clients are told of an edge to the next: clients make its link anew for
/// each. An edge that is hit is told of at once.
pub const PRIORITY_CHANGE: Duration = Duration::from_secs(300);
/// The steps in which round trips are added to a priority, in ms.
pub const PRIORITY_STEP: u16 = 10;
/// Milliseconds that are added to the priority of an edge of whose month `traffic.soft` is used up.
pub const SOFT_TRAFFIC: u16 = 100;
/// The time for which an edge that was never seen is waited for, as after a start of the core.
pub const GRACE: Duration = Duration::from_secs(60);

words! {
    /// The state of an edge.
    pub enum EdgeState {
        /// It is as it should be.
        Up = "up",
        /// Round trips over it are well above its own.
        Slow = "slow",
        /// It loses links while the same players' other links live.
        Hit = "hit",
        /// It cannot be used, or is not to be.
        Out = "out",
    }
}

words! {
    /// The reason of an edge's state.
    pub enum EdgeCause {
        /// Nothing is known against it.
        Fine = "fine",
        /// Round trips over it are longer than they are over it at other times.
        RoundTrips = "round_trips",
        /// Players lost links over it, and not their others.
        LinksLost = "links_lost",
        /// It has no trunk to the core.
        NoTrunk = "no_trunk",
        /// Neither other edges nor players reach it.
        Unreachable = "unreachable",
        /// The traffic of its month is used up.
        Traffic = "traffic",
        /// An operator took it out.
        Operator = "operator",
        /// `disabled` of the file takes it out.
        Disabled = "disabled",
        /// It is revoked.
        Revoked = "revoked",
    }
}

/// The judgement on an edge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EdgeVerdict {
    /// Its name.
    pub name: Arc<str>,
    /// Its state.
    pub state: EdgeState,
    /// The reason of that.
    pub cause: EdgeCause,
    /// The time from which on it is in that state.
    pub since: Instant,
    /// The word for clients.
    pub decision: EdgeDecision,
}

/// The judge of all edges of a core.
#[derive(Debug)]
pub struct FleetEngine {
    config: FleetConfig,
    edges: Vec<Judged>,
}

/// An edge, and what is known of it.
#[derive(Debug)]
struct Judged {
    name: Arc<str>,
    peer: EdgePeer,
    since: Instant,
    /// The last time that evidence changed its state.
    changed: Option<Instant>,
    /// True once it could be used.
    seen: bool,
    down: Option<EdgeCause>,
    /// Rounds in a row that speak against what is held of its reach.
    against: u32,
    losses: Losses,
    hit: bool,
    pace: Pace,
    slow: bool,
    /// Bytes of its month.
    traffic: u64,
    /// An operator's word: true if clients are to be told of it.
    order: Option<bool>,
    state: EdgeState,
    cause: EdgeCause,
    decision: EdgeDecision,
    /// The last time that its priority changed.
    told: Option<Instant>,
}

impl FleetEngine {
    /// Makes the judge of these edges, all of which count as good until the evidence says otherwise.
    pub fn new(config: &FleetConfig, peers: &[EdgePeer], now: Instant) -> Self {
        let mut engine = Self { config: config.clone(), edges: Vec::new() };
        engine.set(config, peers, now);
        engine
    }

    /// Judges exactly these edges from now on. Knowledge of edges that stay is kept.
    pub fn set(&mut self, config: &FleetConfig, peers: &[EdgePeer], now: Instant) {
        self.config = config.clone();
        let mut before = std::mem::take(&mut self.edges);
        self.edges = peers
            .iter()
            .map(|peer| match before.iter().position(|edge| *edge.name == *peer.name) {
                Some(index) => before.swap_remove(index).with(peer),
                None => Judged::new(peer, now),
            })
            .collect();
        self.conclude(now);
    }

    /// Goes by an operator's word on an edge from now on: true has clients told of it, false not, and `None` leaves it to the
    /// evidence.
    pub fn order(&mut self, edge: &str, order: Option<bool>, now: Instant) {
        if let Some(edge) = self.edges.iter_mut().find(|judged| *judged.name == *edge) {
            edge.order = order;
        }
        self.conclude(now);
    }

    /// Judges all edges by the evidence of a round.
    pub fn round(&mut self, evidence: &HashMap<Arc<str>, EdgeEvidence>, now: Instant) {
        let (none, fall, rise) = (EdgeEvidence::default(), self.config.fall, self.config.rise);
        let reaches: Vec<_> = self.edges.iter().map(|edge| edge.expect(reach(&edge.name, evidence), now)).collect();
        // If none that is held to be good can be used any more, it is what all have in common that failed, as the network in front
        // of the core: taking one out would help nobody.
        let good = || self.edges.iter().zip(&reaches).filter(|(edge, _)| edge.down.is_none() && edge.is_public());
        let all_look_bad = good().all(|(_, reach)| matches!(reach, EdgeReach::Bad(_)));
        for (edge, reach) in self.edges.iter_mut().zip(reaches) {
            let seen = evidence.get(&edge.name).unwrap_or(&none);
            edge.traffic = seen.traffic.unwrap_or(edge.traffic);
            let held = all_look_bad && edge.down.is_none() && matches!(reach, EdgeReach::Bad(_));
            edge.judge(seen, if held { EdgeReach::Unknown } else { reach }, (fall, rise), now);
        }
        self.conclude(now);
    }

    /// Returns the edges as the file has them, in its order.
    pub fn peers(&self) -> impl Iterator<Item = &EdgePeer> {
        self.edges.iter().map(|edge| &edge.peer)
    }

    /// Returns the judgements, in the order of the file.
    pub fn verdicts(&self) -> impl Iterator<Item = EdgeVerdict> {
        self.edges.iter().map(|Judged { name, state, cause, since, decision, .. }| EdgeVerdict {
            name: Arc::clone(name),
            state: *state,
            cause: *cause,
            since: *since,
            decision: *decision,
        })
    }

    /// Settles states, priorities, and which edges clients are told of.
    fn conclude(&mut self, now: Instant) {
        self.edges.iter_mut().for_each(|edge| edge.settle(now));
        let fallen = |edge: &&Judged| edge.counts() && matches!(edge.state, EdgeState::Out | EdgeState::Hit);
        let mut reserves = self.edges.iter().filter(fallen).filter(|edge| !edge.peer.reserve).count();
        let mut listed = 0;
        for edge in &mut self.edges {
            let good = edge.counts() && edge.order != Some(false) && edge.state != EdgeState::Out;
            let called = !edge.peer.reserve || (reserves > 0 && edge.state != EdgeState::Hit);
            let is_listed = edge.counts() && (edge.order == Some(true) || (good && called));
            if edge.peer.reserve && is_listed {
                reserves = reserves.saturating_sub(1);
            }
            edge.decision.listed = is_listed;
            listed += usize::from(is_listed);
        }
        let missing = self.config.min_edges.saturating_sub(listed);
        let mut left: Vec<_> = self
            .edges
            .iter_mut()
            .filter(|edge| edge.counts() && !edge.decision.listed && edge.order.is_none())
            .collect();
        // Of those that nobody took out by hand, the ones of which the least is known against them.
        left.sort_by_key(|edge| (edge.state.index(), edge.cause.index()));
        left.into_iter().take(missing).for_each(|edge| edge.decision.listed = true);
    }
}

impl Judged {
    fn new(peer: &EdgePeer, now: Instant) -> Self {
        Self {
            name: peer.name.as_str().into(),
            peer: peer.clone(),
            since: now,
            changed: None,
            seen: false,
            down: None,
            against: 0,
            losses: Losses::default(),
            hit: false,
            pace: Pace::default(),
            slow: false,
            traffic: 0,
            order: None,
            state: EdgeState::Up,
            cause: EdgeCause::Fine,
            decision: EdgeDecision { listed: false, priority: peer.priority },
            told: None,
        }
    }

    /// Returns it with new settings. A priority that the file changes is told at once.
    fn with(self, peer: &EdgePeer) -> Self {
        let same = (peer.priority, peer.priority_under_attack) == (self.peer.priority, self.peer.priority_under_attack);
        Self { peer: peer.clone(), told: self.told.filter(|_| same), ..self }
    }

    /// Returns whether clients can be told of it at all.
    fn is_public(&self) -> bool {
        self.peer.public.is_some()
    }

    /// Returns whether clients may be told of it, as far as the file goes.
    fn counts(&self) -> bool {
        self.is_public() && !self.peer.disabled && !self.peer.revoked
    }

    /// Returns the reach of an edge that is on its way, perhaps, as unknown.
    fn expect(&self, reach: EdgeReach, now: Instant) -> EdgeReach {
        let is_young = !self.seen && now.saturating_duration_since(self.since) < GRACE;
        if is_young && matches!(reach, EdgeReach::Bad(_)) { EdgeReach::Unknown } else { reach }
    }

    fn judge(&mut self, seen: &EdgeEvidence, reach: EdgeReach, (fall, rise): (u32, u32), now: Instant) {
        self.seen |= reach == EdgeReach::Good;
        // Clients that are told of it no more take their links down by themselves.
        let lost = if self.decision.listed { seen.lost } else { 0 };
        self.losses.add(seen.links, lost, now);
        self.pace.add(seen, now);
        self.against = match (reach, self.down) {
            (EdgeReach::Good, Some(_)) | (EdgeReach::Bad(_), None) => self.against.saturating_add(1),
            (EdgeReach::Unknown, _) => self.against,
            (EdgeReach::Good, None) | (EdgeReach::Bad(_), Some(_)) => 0,
        };
        let down = match (reach, self.down) {
            (EdgeReach::Bad(cause), None) if self.against >= fall => Some(cause),
            (EdgeReach::Good, Some(_)) if self.against >= rise => None,
            // It may be another one by now.
            (EdgeReach::Bad(cause), Some(_)) => Some(cause),
            (_, down) => down,
        };
        // One that is about to be out is not called hit first: that would hold back the change that matters.
        let hit =
            if self.hit { !self.losses.are_over(now) } else { self.losses.are_many(now) && reach == EdgeReach::Good };
        let slow = self.pace.is_slow(self.slow);
        let is_other = (down.is_some(), hit, slow) != (self.down.is_some(), self.hit, self.slow);
        if !is_other || self.changed.is_none_or(|at| now.saturating_duration_since(at) >= STATE_CHANGE) {
            if is_other {
                (self.changed, self.against) = (Some(now), 0);
            }
            (self.down, self.hit, self.slow) = (down, hit, slow);
        }
    }

    /// Settles its state and its priority.
    fn settle(&mut self, now: Instant) {
        let uses_up = self.peer.traffic.is_some_and(|traffic| self.traffic >= traffic.month);
        let (state, cause) = if self.peer.revoked {
            (EdgeState::Out, EdgeCause::Revoked)
        } else if self.peer.disabled {
            (EdgeState::Out, EdgeCause::Disabled)
        } else if self.order == Some(false) {
            (EdgeState::Out, EdgeCause::Operator)
        } else if let Some(cause) = self.down {
            (EdgeState::Out, cause)
        } else if uses_up {
            (EdgeState::Out, EdgeCause::Traffic)
        } else if self.hit {
            (EdgeState::Hit, EdgeCause::LinksLost)
        } else if self.slow {
            (EdgeState::Slow, EdgeCause::RoundTrips)
        } else {
            (EdgeState::Up, EdgeCause::Fine)
        };
        let becomes_hit = state == EdgeState::Hit && self.state != EdgeState::Hit;
        if state != self.state {
            self.since = now;
        }
        (self.state, self.cause) = (state, cause);
        let wanted = self.wanted_priority();
        let is_time = self.told.is_none_or(|at| now.saturating_duration_since(at) >= PRIORITY_CHANGE);
        if wanted != self.decision.priority && (is_time || becomes_hit) {
            (self.decision.priority, self.told) = (wanted, Some(now));
        }
    }

    fn wanted_priority(&self) -> u16 {
        let base = if self.state == EdgeState::Hit { self.peer.priority_when_hit() } else { self.peer.priority };
        let soft = self.peer.traffic.is_some_and(|traffic| {
            u128::from(self.traffic) * 100 >= u128::from(traffic.month) * u128::from(traffic.soft)
        });
        let slow = if self.slow { self.pace.steps() } else { 0 };
        base.saturating_add(slow).saturating_add(if soft { SOFT_TRAFFIC } else { 0 })
    }
}
