//! What a new connection passes before anything is spent on it: the gate of its listener, and that of
//! the process.

use std::net::SocketAddr;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};
use std::time::Instant;

use super::{
    Access, AddressKey, Bans, ConnectionGuard, ConnectionLimit, LimitExceeded, Presence, Present, Rate, RateLimit,
    Roster,
};
use crate::reason::RejectReason;

/// What a gate lets through. `None` is no limit, and the default.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct GateLimits {
    /// Connections at once.
    pub connections: Option<usize>,
    /// Connections at once of one player address.
    pub connections_per_address: Option<usize>,
    /// New connections of one player address.
    pub rate_per_address: Option<Rate>,
}

/// Looks at who comes, and counts what passes, over all workers.
#[derive(Debug)]
pub struct Gate {
    /// Locked for a look by who comes, and for a change by a reload.
    rules: RwLock<Rules>,
    connections: Arc<ConnectionLimit>,
}

/// What a gate goes by that is replaced as a whole.
#[derive(Debug)]
struct Rules {
    access: Arc<Access>,
    rate: Option<RateLimit>,
}

impl Gate {
    /// Nobody has passed yet.
    pub fn new(limits: GateLimits, access: Arc<Access>) -> Self {
        Self {
            rules: RwLock::new(Rules { access, rate: limits.rate_per_address.map(RateLimit::new) }),
            connections: ConnectionLimit::new(limits.connections, limits.connections_per_address),
        }
    }

    /// Goes by these from now on. Who has passed stays, and counts.
    pub fn set(&self, limits: GateLimits, access: Arc<Access>) {
        self.connections.set(limits.connections, limits.connections_per_address);
        let old = {
            let mut rules = self.rules.write().unwrap_or_else(PoisonError::into_inner);
            let before = rules.rate.take();
            let again = |rate| before.map_or_else(|| RateLimit::new(rate), |before| before.with(rate));
            std::mem::replace(&mut *rules, Rules { access, rate: limits.rate_per_address.map(again) })
        };
        // A long list is freed while nobody waits for the lock.
        drop(old);
    }

    fn rules(&self) -> RwLockReadGuard<'_, Rules> {
        // Nothing that can panic runs under the lock of a change.
        self.rules.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts the connection of `guard` for its player's address.
    fn claim(&self, guard: &mut ConnectionGuard, player: AddressKey, now: Instant) -> Result<(), Refused> {
        guard.try_claim(player)?;
        match &self.rules().rate {
            Some(rate) if !rate.try_take(player, now) => Err(Refused::Rate),
            _ => Ok(()),
        }
    }
}

/// Which limit of one gate.
enum Refused {
    Connections(LimitExceeded),
    Rate,
}

impl From<LimitExceeded> for Refused {
    fn from(exceeded: LimitExceeded) -> Self {
        Self::Connections(exceeded)
    }
}

/// What connections to all listeners have in common: who is banned, a gate, and the roster of those that passed.
#[derive(Debug)]
pub struct ProcessGate {
    bans: Arc<Bans>,
    gate: Gate,
    roster: Arc<Roster>,
}

impl ProcessGate {
    /// Nobody has passed yet.
    pub fn new(gate: Gate, bans: Arc<Bans>) -> Arc<Self> {
        Arc::new(Self { bans, gate, roster: Arc::default() })
    }

    /// Who is banned.
    pub fn bans(&self) -> &Arc<Bans> {
        &self.bans
    }

    /// Goes by these from now on. Who has passed stays, and counts.
    pub fn set(&self, limits: GateLimits, access: Arc<Access>) {
        self.gate.set(limits, access);
    }

    /// Connections now.
    pub fn connections(&self) -> usize {
        self.gate.connections.total()
    }

    /// All connections that are open now.
    pub fn roster(&self) -> &Arc<Roster> {
        &self.roster
    }
}

/// The gates before one listener: its own, and behind it that of the process, which all listeners have
/// in common. So what a listener refuses takes nothing of what the process lets through.
#[derive(Debug)]
pub struct Gates {
    /// The listener's name.
    name: Arc<str>,
    listener: Gate,
    process: Arc<ProcessGate>,
}

impl Gates {
    /// The gates before the listener of this name.
    pub fn new(name: &str, listener: Gate, process: Arc<ProcessGate>) -> Self {
        Self { name: name.into(), listener, process }
    }

    /// Has the listener's gate go by these from now on.
    pub fn set(&self, limits: GateLimits, access: Arc<Access>) {
        self.listener.set(limits, access);
    }

    /// Connections now: in the process, and of those on the listener.
    pub fn open(&self) -> (usize, usize) {
        (self.process.gate.connections.total(), self.listener.connections.total())
    }

    /// Who is banned, from all listeners.
    pub fn bans(&self) -> &Bans {
        &self.process.bans
    }

    /// Counts a connection of `peer` whose player is not known yet.
    ///
    /// # Errors
    /// The ban, the list or the limit that refuses it; nothing is counted then.
    pub fn enter(&self, peer: SocketAddr, now: Instant) -> Result<Admission, RejectReason> {
        self.process.bans.check(peer.ip(), now)?;
        self.listener.rules().access.check_peer(peer.ip())?;
        self.process.gate.rules().access.check_peer(peer.ip())?;
        let listener = self.listener.connections.try_accept().map_err(|_| RejectReason::Limit)?;
        let process = self.process.gate.connections.try_accept().map_err(|_| RejectReason::ProcessLimit)?;
        Ok(Admission { present: self.process.roster.enter(&self.name, peer), listener, process })
    }

    /// Counts an entered connection for its player too, now that it is known who that is.
    ///
    /// # Errors
    /// The ban, the list or the limit that refuses it. The connection goes on counting where it did, until it is dropped.
    pub fn pass(&self, admission: &mut Admission, player: SocketAddr, now: Instant) -> Result<(), RejectReason> {
        admission.presence().set_player(player);
        if player.ip() != admission.presence().peer().ip() {
            self.process.bans.check(player.ip(), now)?;
        }
        self.listener.rules().access.check(player.ip())?;
        self.process.gate.rules().access.check(player.ip())?;
        let player = AddressKey::from(player.ip());
        self.listener.claim(&mut admission.listener, player, now).map_err(|refused| match refused {
            Refused::Connections(LimitExceeded::Total) => RejectReason::Limit,
            Refused::Connections(LimitExceeded::Address) => RejectReason::AddressLimit,
            Refused::Rate => RejectReason::Rate,
        })?;
        self.process.gate.claim(&mut admission.process, player, now).map_err(|refused| match refused {
            Refused::Connections(LimitExceeded::Total) => RejectReason::ProcessLimit,
            Refused::Connections(LimitExceeded::Address) => RejectReason::ProcessAddressLimit,
            Refused::Rate => RejectReason::ProcessRate,
        })
    }
}

/// A connection that was let in. Dropping it counts it off.
#[derive(Debug)]
pub struct Admission {
    present: Present,
    listener: ConnectionGuard,
    process: ConnectionGuard,
}

impl Admission {
    /// What others see of it.
    pub fn presence(&self) -> &Arc<Presence> {
        self.present.presence()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::limits::{AddressSet, BanRules};
    use crate::metrics::Metrics;

    const NONE: GateLimits = GateLimits { connections: None, connections_per_address: None, rate_per_address: None };

    /// Limits, and no lists.
    fn gate(limits: GateLimits) -> Gate {
        Gate::new(limits, Arc::default())
    }

    /// Nobody is banned, but by the operator.
    fn bans() -> Arc<Bans> {
        let rules = BanRules { after: None, lasting: Duration::from_secs(600), exempt: AddressSet::default() };
        Bans::new(rules, Metrics::new().bans())
    }

    fn at(address: &str) -> SocketAddr {
        SocketAddr::new(address.parse().unwrap(), 4000)
    }

    fn process(limits: GateLimits) -> Arc<ProcessGate> {
        ProcessGate::new(gate(limits), bans())
    }

    fn come(gates: &Gates, player: &str, now: Instant) -> Result<Admission, RejectReason> {
        let mut admission = gates.enter(at(player), now)?;
        gates.pass(&mut admission, at(player), now).map(|()| admission)
    }

    #[test]
    fn each_limit_refuses_for_its_own_reason() {
        let now = Instant::now();
        let rate = Some(Rate::per(1, Duration::from_secs(10)));
        for (limits, other, of_listener, of_process) in [
            (GateLimits { connections: Some(1), ..NONE }, "192.0.2.2", RejectReason::Limit, RejectReason::ProcessLimit),
            (
                GateLimits { connections_per_address: Some(1), ..NONE },
                "192.0.2.1",
                RejectReason::AddressLimit,
                RejectReason::ProcessAddressLimit,
            ),
            (GateLimits { rate_per_address: rate, ..NONE }, "192.0.2.1", RejectReason::Rate, RejectReason::ProcessRate),
        ] {
            for (listener, process, reason) in [(limits, NONE, of_listener), (NONE, limits, of_process)] {
                let gates = Gates::new("links", gate(listener), self::process(process));
                let _first = come(&gates, "192.0.2.1", now).unwrap();
                assert_eq!(come(&gates, other, now).err(), Some(reason));
                let totals = [&gates.listener, &gates.process.gate].map(|gate| gate.connections.total());
                assert_eq!(totals, [1, 1], "the refused one counts nowhere");
            }
        }
    }

    #[test]
    fn all_listeners_share_the_gate_of_the_process() {
        let now = Instant::now();
        let process = process(GateLimits {
            connections: Some(3),
            connections_per_address: Some(2),
            rate_per_address: Some(Rate::per(3, Duration::from_secs(10))),
        });
        let [links, login] = ["links", "login"].map(|name| Gates::new(name, gate(NONE), Arc::clone(&process)));
        let first = come(&links, "192.0.2.1", now).unwrap();
        let _second = come(&login, "192.0.2.1", now).unwrap();
        assert_eq!(come(&links, "192.0.2.1", now).err(), Some(RejectReason::ProcessAddressLimit));
        let _third = come(&login, "192.0.2.2", now).unwrap();
        assert_eq!(links.enter(at("192.0.2.3"), now).err(), Some(RejectReason::ProcessLimit));
        drop(first);
        drop(come(&links, "192.0.2.1", now).unwrap());
        assert_eq!(come(&login, "192.0.2.1", now).err(), Some(RejectReason::ProcessRate));
    }

    #[test]
    fn what_a_listener_refuses_takes_nothing_of_the_process() {
        let now = Instant::now();
        let two = Some(Rate::per(2, Duration::from_secs(10)));
        let process = process(GateLimits { rate_per_address: two, ..NONE });
        let links = Gates::new(
            "links",
            gate(GateLimits { rate_per_address: Some(Rate::per(1, Duration::from_secs(10))), ..NONE }),
            Arc::clone(&process),
        );
        let login = Gates::new("login", gate(NONE), process);
        assert!(come(&links, "2001:db8::1", now).is_ok());
        for _ in 0..10 {
            assert_eq!(come(&links, "2001:db8::2", now).err(), Some(RejectReason::Rate), "an IPv6 /64 is one address");
        }
        assert!(come(&login, "2001:db8::1", now).is_ok());
    }

    #[test]
    fn what_a_gate_goes_by_can_be_replaced_while_all_that_it_counts_stays() {
        let now = Instant::now();
        let gates = Gates::new("links", gate(NONE), process(NONE));
        let held = [come(&gates, "192.0.2.1", now).unwrap(), come(&gates, "192.0.2.1", now).unwrap()];
        let denied = Arc::new(Access {
            deny: ["192.0.2.9/32".parse::<ipnet::IpNet>().unwrap()].into_iter().collect(),
            allow: None,
        });
        gates.set(GateLimits { connections_per_address: Some(2), ..NONE }, denied);
        assert_eq!(come(&gates, "192.0.2.1", now).err(), Some(RejectReason::AddressLimit));
        assert_eq!(come(&gates, "192.0.2.9", now).err(), Some(RejectReason::Denied));
        assert!(come(&gates, "192.0.2.2", now).is_ok());
        gates.set(GateLimits { connections: Some(2), ..NONE }, Arc::default());
        assert_eq!(come(&gates, "192.0.2.9", now).err(), Some(RejectReason::Limit));
        drop(held);
        let once = |seconds| GateLimits { rate_per_address: Some(Rate::per(1, Duration::from_secs(seconds))), ..NONE };
        gates.set(once(10), Arc::default());
        assert!(come(&gates, "192.0.2.9", now).is_ok());
        gates.set(once(20), Arc::default());
        assert_eq!(come(&gates, "192.0.2.9", now).err(), Some(RejectReason::Rate), "it is known that he came");
        gates.process.set(GateLimits { connections: Some(0), ..NONE }, Arc::default());
        assert_eq!(come(&gates, "192.0.2.2", now).err(), Some(RejectReason::ProcessLimit));
    }

    #[test]
    fn each_list_refuses_whatever_the_other_says() {
        let now = Instant::now();
        let access = |deny: &str, allow: Option<&str>| {
            let set = |network: &str| std::iter::once(network.parse::<ipnet::IpNet>().unwrap()).collect();
            Arc::new(Access { deny: set(deny), allow: allow.map(set) })
        };
        let process = ProcessGate::new(Gate::new(NONE, access("192.0.2.0/24", Some("10.0.0.0/9"))), bans());
        let gates = Gates::new("links", Gate::new(NONE, access("10.0.0.0/24", Some("10.0.0.0/8"))), process);
        for (player, verdict) in [
            ("10.1.0.1", None),
            ("10.0.0.1", Some(RejectReason::Denied)),
            ("10.200.0.1", Some(RejectReason::NotAllowed)),
            ("192.0.2.1", Some(RejectReason::Denied)),
            ("198.51.100.1", Some(RejectReason::NotAllowed)),
            ("2001:db8::1", Some(RejectReason::NotAllowed)),
        ] {
            assert_eq!(come(&gates, player, now).err(), verdict, "{player}");
        }
        // A proxy need not be among the players, and is as unwelcome as they are where it is denied.
        let mut admission = gates.enter(at("198.51.100.1"), now).unwrap();
        assert_eq!(gates.pass(&mut admission, at("10.1.0.1"), now), Ok(()));
        for denied in ["192.0.2.1", "10.0.0.1"] {
            assert_eq!(gates.enter(at(denied), now).err(), Some(RejectReason::Denied), "{denied}");
        }
        assert_eq!(gates.listener.connections.total(), 1, "the denied count nowhere");
    }

    #[test]
    fn who_passed_is_on_the_roster_and_who_is_refused_is_not() {
        let now = Instant::now();
        let gates = Gates::new("links", gate(GateLimits { connections: Some(1), ..NONE }), process(NONE));
        let roster = Arc::clone(gates.process.roster());
        let mut admission = gates.enter(at("198.51.100.1"), now).unwrap();
        assert!(gates.enter(at("198.51.100.2"), now).is_err());
        let there = roster.select(|_| true);
        assert_eq!(there.len(), 1);
        assert_eq!((there[0].listener(), there[0].peer(), there[0].player()), ("links", at("198.51.100.1"), None));
        gates.pass(&mut admission, at("10.1.0.1"), now).unwrap();
        assert_eq!(there[0].player(), Some(at("10.1.0.1")));
        drop(admission);
        assert!(roster.select(|_| true).is_empty());
    }
    #[test]
    fn who_is_banned_is_refused_as_a_peer_and_as_a_player_and_counts_nowhere() {
        let now = Instant::now();
        let rate = Some(Rate::per(1, Duration::from_secs(10)));
        let gates = Gates::new("links", gate(GateLimits { rate_per_address: rate, ..NONE }), process(NONE));
        let lasting = Duration::from_secs(60);
        gates.bans().ban("192.0.2.0/24".parse().unwrap(), lasting, now);
        for _ in 0..3 {
            assert_eq!(gates.enter(at("192.0.2.1"), now).err(), Some(RejectReason::Banned));
            let mut admission = gates.enter(at("198.51.100.1"), now).unwrap();
            assert_eq!(gates.pass(&mut admission, at("192.0.2.1"), now), Err(RejectReason::Banned));
        }
        assert_eq!(gates.open(), (0, 0));
        assert!(come(&gates, "192.0.2.1", now + lasting).is_ok(), "what was refused has used up his rate");
    }
}
