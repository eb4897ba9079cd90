//! The signs of each edge that the links over it give, in rounds.
//!
//! A link counts from when something came over it while its client had a session: so visits, and clients that wait at their
//! login, count for nothing. One that was lost is judged when its client is known to live on, as a client that ends loses all
//! its links.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use otproxy_protocol::frame::ClientId;

use super::{EdgeMetrics, Relay};
use crate::connection::CloseReason;

/// Round trips of one edge that a worker keeps in a round: of more the oldest are forgotten.
pub const KEPT_TRIPS: usize = 256;
/// Lost links on one worker that wait to be judged; of more, none count.
pub const MAX_SUSPECTS: usize = 16_384;
/// Rounds after the one of a loss in which its client may be heard.
const PATIENCE: u32 = 3;

/// The signs of the links over one edge, since the last round.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LinkSigns {
    /// Players' links now.
    pub links: u64,
    /// Players' links over which anything came.
    pub heard: u64,
    /// Players' links that broke while their clients lived on over others.
    pub lost: u64,
    /// Round trips that players told, the last ones of many.
    pub round_trips: Vec<Duration>,
}

impl LinkSigns {
    /// Adds those of another worker.
    fn add(&mut self, other: Self) {
        self.links += other.links;
        self.heard += other.heard;
        self.lost += other.lost;
        self.round_trips.extend(other.round_trips);
    }

    /// Returns the middle one of the round trips.
    #[must_use]
    pub fn middle(&self) -> Option<Duration> {
        let mut trips = self.round_trips.clone();
        trips.sort_unstable();
        trips.get(trips.len() / 2).copied()
    }
}

/// The signs of the links over one edge, as they are counted on a worker.
#[derive(Debug, Clone, Default)]
pub struct SignCounters {
    links: Cell<u64>,
    heard: Cell<u64>,
    lost: Cell<u64>,
    /// Links lost in all rounds.
    ever_lost: Cell<u64>,
    trips: Trips,
    /// Round trips since the last sample.
    sampled: Trips,
}

/// The last round trips.
#[derive(Debug, Clone, Default)]
struct Trips {
    kept: RefCell<Vec<Duration>>,
    /// The place of the next round trip once all are taken.
    next: Cell<usize>,
}

impl Trips {
    fn add(&self, told: Duration) {
        let mut kept = self.kept.borrow_mut();
        if kept.len() < KEPT_TRIPS {
            kept.push(told);
        } else if let Some(oldest) = kept.get_mut(self.next.get()) {
            *oldest = told;
            self.next.set((self.next.get() + 1) % KEPT_TRIPS);
        }
    }

    fn take(&self) -> Vec<Duration> {
        self.next.set(0);
        self.kept.take()
    }
}

impl SignCounters {
    pub(super) fn round_trip(&self, told: Duration) {
        self.trips.add(told);
        self.sampled.add(told);
    }

    fn lose(&self) {
        self.lost.set(self.lost.get() + 1);
        self.ever_lost.set(self.ever_lost.get() + 1);
    }

    /// Returns how many links were ever lost, and the round trips since the last time that this was called.
    pub(super) fn sample(&self) -> (u64, Vec<Duration>) {
        (self.ever_lost.get(), self.sampled.take())
    }

    /// Returns what was counted, and begins a new round.
    fn take(&self) -> LinkSigns {
        LinkSigns {
            links: self.links.get(),
            heard: self.heard.take(),
            lost: self.lost.take(),
            round_trips: self.trips.take(),
        }
    }
}

/// The standing of one link.
#[derive(Debug, Default)]
pub struct LinkSign {
    /// It is a player's.
    counts: Cell<bool>,
    /// The last round in which something came.
    heard_in: Cell<u32>,
    /// It has been found silent.
    silent: Cell<bool>,
}

impl LinkSign {
    /// Notes that something came in this round. `plays` tells whether its client has a session.
    #[inline]
    pub(super) fn hear(&self, round: u32, edge: &SignCounters, plays: impl FnOnce() -> bool) {
        if self.heard_in.get() != round {
            self.hear_first(round, edge, plays());
        }
    }

    fn hear_first(&self, round: u32, edge: &SignCounters, plays: bool) {
        if !self.counts.get() {
            // It is looked at again with the next bytes.
            if !plays {
                return;
            }
            self.counts.set(true);
            edge.links.set(edge.links.get() + 1);
        }
        self.heard_in.set(round);
        self.silent.set(false);
        edge.heard.set(edge.heard.get() + 1);
    }

    /// Returns whether it is a player's.
    pub(super) fn counts(&self) -> bool {
        self.counts.get()
    }

    /// Notes that nothing comes any more. Returns whether that is a loss, once for each silence.
    fn fall_silent(&self) -> bool {
        self.counts.get() && !self.silent.replace(true)
    }

    /// Notes its end. Returns whether that is a loss.
    fn end(&self, reason: CloseReason, edge: &SignCounters) -> bool {
        if !self.counts.take() {
            return false;
        }
        edge.links.set(edge.links.get().saturating_sub(1));
        is_loss(reason) && !self.silent.get()
    }
}

/// Returns whether a link that ended so was ended by its peer, or by the network.
fn is_loss(reason: CloseReason) -> bool {
    matches!(reason, CloseReason::Client | CloseReason::ClientError | CloseReason::Idle | CloseReason::Tunnel)
}

/// The rounds of a worker, and the losses in them that are not judged yet.
#[derive(Debug)]
pub struct SignRounds {
    /// From 1: no link was heard in round 0.
    round: Cell<u32>,
    /// The round of the loss, by client and edge: one client counts once for each edge.
    suspects: RefCell<HashMap<(ClientId, Arc<str>), u32>>,
}

impl Default for SignRounds {
    fn default() -> Self {
        Self { round: Cell::new(1), suspects: RefCell::default() }
    }
}

impl SignRounds {
    pub(super) fn now(&self) -> u32 {
        self.round.get()
    }

    /// Takes note of a loss. Called as tasks are dropped, perhaps by a panic: a second one would end the process.
    fn suspect(&self, client: ClientId, edge: &Arc<str>) {
        let Ok(mut suspects) = self.suspects.try_borrow_mut() else { return };
        if suspects.len() < MAX_SUSPECTS {
            suspects.entry((client, Arc::clone(edge))).or_insert(self.round.get());
        }
    }

    /// Ends a round. `lives` tells whether a client that has a session was heard in a round after this one; `lost` is told of
    /// each loss whose client was.
    fn next(&self, lives: impl Fn(ClientId, u32) -> Option<bool>, mut lost: impl FnMut(&str)) {
        let now = self.round.get();
        self.suspects.borrow_mut().retain(|(client, edge), of| match lives(*client, *of) {
            Some(true) => {
                lost(edge);
                false
            }
            Some(false) => now.wrapping_sub(*of) < PATIENCE,
            None => false,
        });
        // 0 is no round.
        self.round.set(now.checked_add(1).unwrap_or(1));
    }
}

impl Relay {
    /// Notes that a link fell silent.
    pub(super) fn link_silent(&self, client: ClientId, sign: &LinkSign, edge: &EdgeMetrics) {
        if sign.fall_silent() {
            self.signs.suspect(client, &edge.name);
        }
    }

    /// Notes the end of a link.
    pub(super) fn link_ended(&self, client: ClientId, sign: &LinkSign, edge: &EdgeMetrics, reason: CloseReason) {
        if sign.end(reason, &edge.signs) {
            self.signs.suspect(client, &edge.name);
        }
    }

    /// Ends a round: returns the signs of each edge since the last one.
    pub(super) fn end_round(&self) -> Vec<(Arc<str>, LinkSigns)> {
        let (clients, edges) = (self.clients.borrow(), self.edges.borrow());
        let lives = |client: ClientId, of: u32| {
            let machine = clients.get(&client)?.machine.borrow();
            machine.sessions().next()?;
            Some(machine.links().any(|link| link.sign.heard_in.get() > of))
        };
        let lost = |edge: &str| {
            if let Some(edge) = edges.get(edge) {
                edge.signs.lose();
            }
        };
        self.signs.next(lives, lost);
        edges.values().map(|edge| (Arc::clone(&edge.name), edge.signs.take())).collect()
    }
}

/// Returns the signs of all workers together.
pub(super) fn together(workers: Vec<Vec<(Arc<str>, LinkSigns)>>) -> HashMap<Arc<str>, LinkSigns> {
    let mut all: HashMap<Arc<str>, LinkSigns> = HashMap::new();
    for (edge, signs) in workers.into_iter().flatten() {
        all.entry(edge).or_default().add(signs);
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLIENT: ClientId = ClientId(7);

    fn lost(rounds: &SignRounds, lives: Option<bool>) -> usize {
        let mut count = 0;
        rounds.next(|_, _| lives, |_| count += 1);
        count
    }

    #[test]
    fn a_link_counts_from_when_its_client_plays_and_once_a_round() {
        let (edge, link) = (SignCounters::default(), LinkSign::default());
        link.hear(1, &edge, || false);
        assert_eq!(edge.take(), LinkSigns::default());
        for _ in 0..3 {
            link.hear(2, &edge, || true);
        }
        assert_eq!(edge.take(), LinkSigns { links: 1, heard: 1, ..LinkSigns::default() });
        assert_eq!(edge.take(), LinkSigns { links: 1, ..LinkSigns::default() }, "nothing came in that round");
        // It stays a player's after its session.
        link.hear(4, &edge, || false);
        assert!(link.end(CloseReason::ClientError, &edge));
        assert_eq!(edge.take(), LinkSigns { heard: 1, ..LinkSigns::default() });
        assert!(!link.end(CloseReason::ClientError, &edge), "it has ended");
    }

    #[test]
    fn what_the_core_closes_is_no_loss_and_neither_is_a_visit() {
        let ended = |reason, plays| {
            let (edge, link) = (SignCounters::default(), LinkSign::default());
            link.hear(1, &edge, || plays);
            link.end(reason, &edge)
        };
        for reason in [CloseReason::Client, CloseReason::ClientError, CloseReason::Idle, CloseReason::Tunnel] {
            assert!(ended(reason, true) && !ended(reason, false), "{reason}");
        }
        for reason in [
            CloseReason::Shutdown,
            CloseReason::ProtocolError,
            CloseReason::Refused,
            CloseReason::Panic,
            CloseReason::Revoked,
            CloseReason::Evicted,
            CloseReason::Disconnected,
            CloseReason::Drained,
            CloseReason::Rejoin,
        ] {
            assert!(!ended(reason, true), "{reason}");
        }
    }

    #[test]
    fn a_silence_is_one_loss_with_the_end_that_follows() {
        let (edge, link) = (SignCounters::default(), LinkSign::default());
        assert!(!link.fall_silent(), "it is no player's");
        link.hear(1, &edge, || true);
        assert!(link.fall_silent() && !link.fall_silent());
        assert!(!link.end(CloseReason::Idle, &edge));
        let link = LinkSign::default();
        link.hear(1, &edge, || true);
        assert!(link.fall_silent());
        link.hear(2, &edge, || true);
        assert!(link.fall_silent(), "another one");
    }

    #[test]
    fn a_loss_counts_when_its_client_lives_on() {
        let (rounds, edge) = (SignRounds::default(), Arc::from("waw1"));
        rounds.suspect(CLIENT, &edge);
        rounds.suspect(CLIENT, &edge);
        assert_eq!(lost(&rounds, Some(false)), 0, "nothing is known yet");
        assert_eq!(lost(&rounds, Some(true)), 1, "once for both");
        assert_eq!(lost(&rounds, Some(true)), 0);
        rounds.suspect(CLIENT, &edge);
        assert_eq!(lost(&rounds, None), 0, "it has ended");
        assert_eq!(lost(&rounds, Some(true)), 0);
        rounds.suspect(CLIENT, &edge);
        for _ in 0..=PATIENCE {
            assert_eq!(lost(&rounds, Some(false)), 0);
        }
        assert_eq!(lost(&rounds, Some(true)), 0, "it was not heard for long");
    }

    #[test]
    fn memory_is_bounded() {
        let (rounds, edge) = (SignRounds::default(), Arc::from("waw1"));
        (0..2 * MAX_SUSPECTS as u32).for_each(|client| rounds.suspect(ClientId(client), &edge));
        assert_eq!(lost(&rounds, Some(true)), MAX_SUSPECTS);
        let counters = SignCounters::default();
        (0..1000).for_each(|ms| counters.round_trip(Duration::from_millis(ms)));
        let signs = counters.take();
        assert_eq!(signs.round_trips.len(), KEPT_TRIPS);
        assert_eq!(signs.middle(), Some(Duration::from_millis(1000 - KEPT_TRIPS as u64 / 2)));
        assert_eq!(counters.take().middle(), None);
        counters.lose();
        let (lost, sampled) = counters.sample();
        assert_eq!((lost, sampled.len(), counters.sample()), (1, KEPT_TRIPS, (1, Vec::new())));
        assert_eq!((counters.take().lost, counters.take().lost, counters.sample().0), (1, 0, 1));
    }
}
