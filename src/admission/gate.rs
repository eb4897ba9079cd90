//! Admission of a new connection before anything is spent on it: the limits and lists of its listener, and those of the
//! process.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use parking_lot::{RwLock, RwLockReadGuard};
use prometheus::Gauge;

use super::slots::{Place, Places, Taken};

use super::{Access, AddressKey, Bans, GateLimits, LimitExceeded, RateLimit};
use crate::connection::{Closing, Presence, Present, RejectReason, Roster};

/// Limits and lists of one level, over all workers.
#[derive(Debug)]
pub struct Gate {
    /// Locked briefly by each new connection, and by a reload.
    rules: RwLock<Rules>,
    places: Arc<Places>,
}

/// The rules that are replaced as a whole.
#[derive(Debug)]
struct Rules {
    access: Arc<Access>,
    rate: Option<RateLimit>,
}

impl Gate {
    /// Makes admission without connections.
    pub fn new(limits: GateLimits, access: Arc<Access>) -> Self {
        Self {
            rules: RwLock::new(Rules { access, rate: limits.rate_per_address.map(RateLimit::new) }),
            places: Places::new(&limits),
        }
    }

    /// Changes limits and lists. Open connections stay, and count.
    pub fn set(&self, limits: GateLimits, access: Arc<Access>) {
        self.places.set(&limits);
        let old = {
            let mut rules = self.rules.write();
            let before = rules.rate.take();
            let again = |rate| before.map_or_else(|| RateLimit::new(rate), |before| before.with(rate));
            std::mem::replace(&mut *rules, Rules { access, rate: limits.rate_per_address.map(again) })
        };
        // A long list is freed while nobody waits for the lock.
        drop(old);
    }

    fn rules(&self) -> RwLockReadGuard<'_, Rules> {
        // Nothing that can panic runs under the lock of a change.
        self.rules.read()
    }

    /// Sets the gauge that shows the share of taken slots.
    pub fn show(&self, share: Gauge) {
        self.places.show(share);
    }

    /// Checks that the player may have one more connection now; counts against its rate.
    fn may(&self, player: AddressKey, now: Instant) -> Result<(), Refused> {
        self.places.may(player)?;
        self.take_rate(player, now)
    }

    /// Counts the connection that has `place` for its player.
    fn claim(&self, place: &Place, player: AddressKey, now: Instant) -> Result<(), Refused> {
        place.claim(player)?;
        self.take_rate(player, now)
    }

    fn take_rate(&self, player: AddressKey, now: Instant) -> Result<(), Refused> {
        match &self.rules().rate {
            Some(rate) if !rate.try_take(player, now) => Err(Refused::Rate),
            _ => Ok(()),
        }
    }
}

/// The limit that was reached.
enum Refused {
    Connections(LimitExceeded),
    Rate,
}

impl Refused {
    fn by_listener(self) -> RejectReason {
        match self {
            Self::Connections(LimitExceeded::Total) => RejectReason::Limit,
            Self::Connections(LimitExceeded::Address) => RejectReason::AddressLimit,
            Self::Rate => RejectReason::Rate,
        }
    }

    fn by_process(self) -> RejectReason {
        match self {
            Self::Connections(LimitExceeded::Total) => RejectReason::ProcessLimit,
            Self::Connections(LimitExceeded::Address) => RejectReason::ProcessAddressLimit,
            Self::Rate => RejectReason::ProcessRate,
        }
    }
}

impl From<LimitExceeded> for Refused {
    fn from(exceeded: LimitExceeded) -> Self {
        Self::Connections(exceeded)
    }
}

/// Admission to the process: bans, limits that all listeners share, and the registry of open connections.
#[derive(Debug)]
pub struct ProcessGate {
    bans: Arc<Bans>,
    gate: Gate,
    roster: Arc<Roster>,
}

impl ProcessGate {
    /// Makes admission without connections.
    pub fn new(gate: Gate, bans: Arc<Bans>) -> Arc<Self> {
        Arc::new(Self { bans, gate, roster: Arc::default() })
    }

    /// Returns the bans.
    pub fn bans(&self) -> &Arc<Bans> {
        &self.bans
    }

    /// Sets the gauge that shows the share of the process's taken slots.
    pub fn show(&self, share: Gauge) {
        self.gate.show(share);
    }

    /// Changes limits and lists. Open connections stay, and count.
    pub fn set(&self, limits: GateLimits, access: Arc<Access>) {
        self.gate.set(limits, access);
    }

    /// Returns the number of open connections.
    pub fn connections(&self) -> usize {
        self.gate.places.taken()
    }

    /// Returns the registry of open connections.
    pub fn roster(&self) -> &Arc<Roster> {
        &self.roster
    }
}

/// Admission to one listener: its own limits, and behind them those of the process, which all listeners share. So a
/// connection that the listener refuses takes nothing of the process's limits.
#[derive(Debug)]
pub struct Gates {
    /// The listener's name.
    name: Arc<str>,
    listener: Gate,
    process: Arc<ProcessGate>,
}

impl Gates {
    /// Makes admission to the listener of this name.
    pub fn new(name: &str, listener: Gate, process: Arc<ProcessGate>) -> Self {
        Self { name: name.into(), listener, process }
    }

    /// Makes admission to a listener alone.
    #[cfg(test)]
    pub(crate) fn within(limits: GateLimits) -> Self {
        let rules = super::BanRules { after: None, lasting: std::time::Duration::ZERO, exempt: Default::default() };
        let bans = Bans::new(rules, super::BanMetrics::new(&crate::metrics::Metrics::new()));
        let process = ProcessGate::new(Gate::new(GateLimits::default(), Arc::default()), bans);
        Self::new("test", Gate::new(limits, Arc::default()), process)
    }

    /// Changes the listener's limits and lists.
    pub fn set(&self, limits: GateLimits, access: Arc<Access>) {
        self.listener.set(limits, access);
    }

    /// Returns the number of open connections, of the process and of the listener.
    pub fn open(&self) -> (usize, usize) {
        (self.process.gate.places.taken(), self.listener.places.taken())
    }

    /// Returns the bans, which all listeners share.
    pub fn bans(&self) -> &Bans {
        &self.process.bans
    }

    /// Returns the share of their time that unauthenticated peers get now: less than one if a limit is nearly reached.
    pub fn time_for_strangers(&self) -> f64 {
        self.listener.places.time_for_strangers().min(self.process.gate.places.time_for_strangers())
    }

    /// Sets the gauge that shows the share of the listener's taken slots.
    pub fn show(&self, share: Gauge) {
        self.listener.show(share);
    }

    /// Checks a peer, which is perhaps a proxy, before anything else.
    ///
    /// # Errors
    /// Returns the ban or the list that refuses it.
    pub fn check_peer(&self, peer: IpAddr, now: Instant) -> Result<(), RejectReason> {
        self.process.bans.check(peer, now)?;
        self.listener.rules().access.check_peer(peer)?;
        self.process.gate.rules().access.check_peer(peer)
    }

    /// Admits a connection of `player`, which is known from the start, and whose peer was checked. Only a player within
    /// all limits by address may evict another connection.
    ///
    /// # Errors
    /// Returns the list or the limit that refuses it; then nothing is counted except by rates.
    pub fn admit(&self, player: SocketAddr, now: Instant) -> Result<Admission, RejectReason> {
        self.check(player)?;
        let address = AddressKey::from(player.ip());
        self.listener.may(address, now).map_err(Refused::by_listener)?;
        self.process.gate.may(address, now).map_err(Refused::by_process)?;
        let admission = self.place(player, Some(address))?;
        admission.presence().set_player(player);
        Ok(admission)
    }

    /// Admits a connection of `peer` before its PROXY header has told the player. It counts in all, so that connections
    /// which never send a header are limited too.
    ///
    /// # Errors
    /// Returns the limit that refuses it; then nothing is counted.
    pub fn enter(&self, peer: SocketAddr) -> Result<Admission, RejectReason> {
        self.place(peer, None)
    }

    /// Counts an admitted connection for its player too, once the player is known.
    ///
    /// # Errors
    /// Returns the ban, the list or the limit that refuses it. The connection still counts as before, until it is
    /// dropped.
    pub fn pass(&self, admission: &Admission, player: SocketAddr, now: Instant) -> Result<(), RejectReason> {
        admission.presence().set_player(player);
        if player.ip() != admission.presence().peer().ip() {
            self.process.bans.check(player.ip(), now)?;
        }
        self.check(player)?;
        let player = AddressKey::from(player.ip());
        self.listener.claim(&admission.listener, player, now).map_err(Refused::by_listener)?;
        self.process.gate.claim(&admission.process, player, now).map_err(Refused::by_process)
    }

    fn check(&self, player: SocketAddr) -> Result<(), RejectReason> {
        self.listener.rules().access.check(player.ip())?;
        self.process.gate.rules().access.check(player.ip())
    }

    /// Takes slots of the listener and of the process, and closes connections that are evicted from them.
    fn place(&self, peer: SocketAddr, player: Option<AddressKey>) -> Result<Admission, RejectReason> {
        let present = self.process.roster.enter(&self.name, peer);
        let id = present.presence().id();
        let refused = |exceeded| Refused::from(exceeded);
        let of_listener = self.listener.places.take(id, player).map_err(|limit| refused(limit).by_listener())?;
        let listener = self.evict_from(of_listener);
        let of_process = self.process.gate.places.take(id, player).map_err(|limit| refused(limit).by_process())?;
        let process = self.evict_from(of_process);
        Ok(Admission { present, listener, process })
    }

    fn evict_from(&self, Taken { place, evicted }: Taken) -> Place {
        if let Some(evicted) = evicted {
            // At once, and not when its task has ended: the same connection shall not need two others' places.
            self.process.gate.places.leave(evicted);
            if let Some(presence) = self.process.roster.get(evicted) {
                presence.close(Closing::Evicted);
            }
        }
        place
    }
}

/// The guard of an admitted connection. Dropping it counts it off.
#[derive(Debug)]
pub struct Admission {
    present: Present,
    listener: Place,
    process: Place,
}

impl Admission {
    /// Returns the connection's handle.
    pub fn presence(&self) -> &Arc<Presence> {
        self.present.presence()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::admission::{BanMetrics, BanRules};
    use crate::metrics::Metrics;
    use otproxy_config::AddressSet;
    use otproxy_protocol::rate::Rate;

    const NONE: GateLimits = GateLimits {
        connections: None,
        connections_per_address: None,
        rate_per_address: None,
        fair_share: false,
        pressure: false,
    };

    /// Makes admission with limits and without lists.
    fn gate(limits: GateLimits) -> Gate {
        Gate::new(limits, Arc::default())
    }

    /// Makes bans by the operator alone.
    fn bans() -> Arc<Bans> {
        let rules = BanRules { after: None, lasting: Duration::from_secs(600), exempt: AddressSet::default() };
        Bans::new(rules, BanMetrics::new(&Metrics::new()))
    }

    fn at(address: &str) -> SocketAddr {
        SocketAddr::new(address.parse().unwrap(), 4000)
    }

    fn process(limits: GateLimits) -> Arc<ProcessGate> {
        ProcessGate::new(gate(limits), bans())
    }

    fn come(gates: &Gates, player: &str, now: Instant) -> Result<Admission, RejectReason> {
        gates.check_peer(at(player).ip(), now)?;
        gates.admit(at(player), now)
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
                let totals = [&gates.listener, &gates.process.gate].map(|gate| gate.places.taken());
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
            fair_share: false,
            pressure: false,
        });
        let [links, login] = ["links", "login"].map(|name| Gates::new(name, gate(NONE), Arc::clone(&process)));
        let first = come(&links, "192.0.2.1", now).unwrap();
        let _second = come(&login, "192.0.2.1", now).unwrap();
        assert_eq!(come(&links, "192.0.2.1", now).err(), Some(RejectReason::ProcessAddressLimit));
        let _third = come(&login, "192.0.2.2", now).unwrap();
        assert_eq!(links.enter(at("192.0.2.3")).err(), Some(RejectReason::ProcessLimit));
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
            deny: Arc::new([ipnet::IpNet::from(at("192.0.2.9").ip())].into_iter().collect()),
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
        gates.process.gate.set(GateLimits { connections: Some(0), ..NONE }, Arc::default());
        assert_eq!(come(&gates, "192.0.2.2", now).err(), Some(RejectReason::ProcessLimit));
    }

    #[test]
    fn each_list_refuses_whatever_the_other_says() {
        let now = Instant::now();
        let access = |deny: &str, allow: Option<&str>| {
            let set = |network: &str| Arc::new(std::iter::once(network.parse::<ipnet::IpNet>().unwrap()).collect());
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
        assert_eq!(gates.check_peer(at("198.51.100.1").ip(), now), Ok(()));
        let admission = gates.enter(at("198.51.100.1")).unwrap();
        assert_eq!(gates.pass(&admission, at("10.1.0.1"), now), Ok(()));
        for denied in ["192.0.2.1", "10.0.0.1"] {
            assert_eq!(gates.check_peer(at(denied).ip(), now), Err(RejectReason::Denied), "{denied}");
        }
        assert_eq!(gates.listener.places.taken(), 1, "the denied count nowhere");
    }

    /// Lets in a crowd of one address; the numbers of its connections that were closed as `evicted` since then, in
    /// order.
    fn crowd(gates: &Gates, count: usize) -> (Vec<Admission>, impl Fn() -> Vec<u64>) {
        let crowd: Vec<_> = (0..count).map(|_| come(gates, "10.0.0.1", Instant::now()).unwrap()).collect();
        let presences: Vec<_> = crowd.iter().map(|admission| Arc::clone(admission.presence())).collect();
        let evicted = move || {
            let evicted = presences.iter().filter(|presence| presence.closing() == Some(Closing::Evicted));
            evicted.map(|presence| presence.id()).collect()
        };
        (crowd, evicted)
    }

    #[test]
    fn a_crowd_makes_room_for_who_has_less_at_each_gate() {
        let (now, fair) = (Instant::now(), GateLimits { connections: Some(3), fair_share: true, ..NONE });
        for (listener, process) in [(fair, NONE), (NONE, fair), (fair, fair)] {
            let gates = Gates::new("links", gate(listener), self::process(process));
            let (held, evicted) = crowd(&gates, 3);
            let _one = come(&gates, "192.0.2.1", now).unwrap();
            assert_eq!(evicted(), [3], "one place, though both gates are full");
            assert_eq!(gates.open().0, 3, "it is gone at once");
            let _other = gates.enter(at("198.51.100.1")).unwrap();
            assert_eq!(evicted(), [2, 3]);
            assert!(come(&gates, "10.0.0.1", now).is_err(), "nobody has more than this one");
            drop(held);
            assert_eq!(gates.open(), (2, 2));
        }
    }

    #[test]
    fn who_is_refused_takes_nobody_s_place() {
        let now = Instant::now();
        let rate = Some(Rate::per(3, Duration::from_secs(10)));
        let limits = GateLimits { rate_per_address: rate, connections_per_address: Some(4), ..NONE };
        let full = GateLimits { connections: Some(4), fair_share: true, ..NONE };
        for (listener, process) in [
            (GateLimits { rate_per_address: rate, ..full }, NONE),
            (GateLimits { connections_per_address: Some(1), ..full }, NONE),
            (full, limits),
            (limits, full),
        ] {
            let gates = Gates::new("links", gate(listener), self::process(process));
            let crowd: Vec<_> =
                ["10.0.0.1", "10.0.0.2", "10.0.0.3"].map(|player| come(&gates, player, now).unwrap()).into();
            let _own = come(&gates, "192.0.2.1", now).unwrap();
            // Beyond what its address may have, one way or the other.
            let refused = (0..6).filter(|_| come(&gates, "192.0.2.1", now).is_err()).count();
            assert!(refused >= 4, "{refused}");
            let evicted = crowd.iter().filter(|admission| admission.presence().closing().is_some()).count();
            assert!(evicted <= 6 - refused, "{evicted}");
        }
    }

    #[test]
    fn the_place_on_another_listener_is_free_when_its_connection_has_ended() {
        let now = Instant::now();
        let process = process(GateLimits { connections: Some(2), fair_share: true, ..NONE });
        let one = Gates::new("links", gate(NONE), Arc::clone(&process));
        let other = Gates::new("login", gate(NONE), process);
        let (mut held, evicted) = crowd(&one, 2);
        let _come = come(&other, "192.0.2.1", now).unwrap();
        assert_eq!((evicted(), one.open(), other.open()), (vec![2], (2, 2), (2, 1)));
        held.pop();
        assert_eq!(one.open(), (2, 1));
    }

    #[test]
    fn who_passed_is_on_the_roster_and_who_is_refused_is_not() {
        let now = Instant::now();
        let gates = Gates::new("links", gate(GateLimits { connections: Some(1), ..NONE }), process(NONE));
        let roster = Arc::clone(gates.process.roster());
        assert_eq!(gates.check_peer(at("198.51.100.1").ip(), now), Ok(()));
        let admission = gates.enter(at("198.51.100.1")).unwrap();
        assert!(gates.enter(at("198.51.100.2")).is_err());
        let there = roster.select(|_| true);
        assert_eq!(there.len(), 1);
        assert_eq!((there[0].listener(), there[0].peer(), there[0].player()), ("links", at("198.51.100.1"), None));
        gates.pass(&admission, at("10.1.0.1"), now).unwrap();
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
            assert_eq!(gates.check_peer(at("192.0.2.1").ip(), now), Err(RejectReason::Banned));
            let admission = gates.enter(at("198.51.100.1")).unwrap();
            assert_eq!(gates.pass(&admission, at("192.0.2.1"), now), Err(RejectReason::Banned));
        }
        assert_eq!(gates.open(), (0, 0));
        assert!(come(&gates, "192.0.2.1", now + lasting).is_ok(), "what was refused has used up his rate");
    }
}
