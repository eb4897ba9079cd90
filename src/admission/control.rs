//! Admission of a new connection before anything is spent on it: the limits and lists of its listener, and those of the
//! process.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use parking_lot::{RwLock, RwLockReadGuard};
use prometheus::Gauge;

use super::slots::{Slot, Slots, TakenSlot};

use super::{AccessList, AddressKey, AdmissionLimits, Bans, LimitExceeded, RateLimit, Reporter};
use crate::connection::{AdmissionError, Closing, ConnectionHandle, ConnectionRegistry, EdgeRegistry, Registration};

/// Limits and lists of one level, over all workers.
#[derive(Debug)]
pub struct AdmissionControl {
    /// Locked briefly by each new connection, and by a reload.
    rules: RwLock<Rules>,
    slots: Arc<Slots>,
}

/// The rules that are replaced as a whole.
#[derive(Debug)]
struct Rules {
    access: Arc<AccessList>,
    rate: Option<RateLimit>,
}

impl AdmissionControl {
    /// Makes admission without connections.
    pub fn new(limits: AdmissionLimits, access: Arc<AccessList>) -> Self {
        Self {
            rules: RwLock::new(Rules { access, rate: limits.rate_per_address.map(RateLimit::new) }),
            slots: Slots::new(&limits),
        }
    }

    /// Changes limits and lists. Open connections stay, and count.
    pub fn set(&self, limits: AdmissionLimits, access: Arc<AccessList>) {
        self.slots.set(&limits);
        let old = {
            let mut rules = self.rules.write();
            let before = rules.rate.take();
            let again = |rate| before.map_or_else(|| RateLimit::new(rate), |before| before.with_rate(rate));
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
    pub fn set_gauge(&self, share: Gauge) {
        self.slots.set_gauge(share);
    }

    /// Checks that the player may have one more connection now; counts against its rate.
    fn check_player(&self, player: AddressKey, now: Instant) -> Result<(), LimitHit> {
        self.slots.check_address(player)?;
        self.take_rate(player, now)
    }

    fn take_rate(&self, player: AddressKey, now: Instant) -> Result<(), LimitHit> {
        match &self.rules().rate {
            Some(rate) if !rate.try_take(player, now) => Err(LimitHit::Rate),
            _ => Ok(()),
        }
    }
}

/// The limit that was reached.
enum LimitHit {
    Connections(LimitExceeded),
    Rate,
}

impl LimitHit {
    fn by_listener(self) -> AdmissionError {
        match self {
            Self::Connections(LimitExceeded::Total) => AdmissionError::Limit,
            Self::Connections(LimitExceeded::Address) => AdmissionError::AddressLimit,
            Self::Rate => AdmissionError::Rate,
        }
    }

    fn by_process(self) -> AdmissionError {
        match self {
            Self::Connections(LimitExceeded::Total) => AdmissionError::ProcessLimit,
            Self::Connections(LimitExceeded::Address) => AdmissionError::ProcessAddressLimit,
            Self::Rate => AdmissionError::ProcessRate,
        }
    }
}

impl From<LimitExceeded> for LimitHit {
    fn from(exceeded: LimitExceeded) -> Self {
        Self::Connections(exceeded)
    }
}

/// Admission to the process: bans, limits that all listeners share, the registry of open connections, and the known edges.
#[derive(Debug)]
pub struct ProcessAdmission {
    bans: Arc<Bans>,
    control: AdmissionControl,
    registry: Arc<ConnectionRegistry>,
    edges: Arc<EdgeRegistry>,
}

impl ProcessAdmission {
    /// Makes admission without connections.
    pub fn new(gate: AdmissionControl, bans: Arc<Bans>) -> Arc<Self> {
        Arc::new(Self { bans, control: gate, registry: Arc::default(), edges: Arc::default() })
    }

    /// Returns the bans.
    pub fn bans(&self) -> &Arc<Bans> {
        &self.bans
    }

    /// Sets the gauge that shows the share of the process's taken slots.
    pub fn set_gauge(&self, share: Gauge) {
        self.control.set_gauge(share);
    }

    /// Changes limits and lists. Open connections stay, and count.
    pub fn set(&self, limits: AdmissionLimits, access: Arc<AccessList>) {
        self.control.set(limits, access);
    }

    /// Returns the number of open connections.
    pub fn connections(&self) -> usize {
        self.control.slots.taken()
    }

    /// Returns the registry of open connections.
    pub fn registry(&self) -> &Arc<ConnectionRegistry> {
        &self.registry
    }

    /// Returns the known edges.
    pub fn edges(&self) -> &Arc<EdgeRegistry> {
        &self.edges
    }
}

/// Admission to one listener: its own limits, and behind them those of the process, which all listeners share. So a
/// connection that the listener refuses takes nothing of the process's limits.
#[derive(Debug)]
pub struct ListenerAdmission {
    /// The listener's name.
    name: Arc<str>,
    listener: AdmissionControl,
    process: Arc<ProcessAdmission>,
}

impl ListenerAdmission {
    /// Makes admission to the listener of this name.
    pub fn new(name: &str, listener: AdmissionControl, process: Arc<ProcessAdmission>) -> Self {
        Self { name: name.into(), listener, process }
    }

    /// Makes admission to a listener alone.
    #[cfg(test)]
    pub(crate) fn alone(limits: AdmissionLimits) -> Self {
        let rules = super::BanPolicy { after: None, lasting: std::time::Duration::ZERO, exempt: Default::default() };
        let bans = Bans::new(rules, super::BanMetrics::new(&crate::metrics::Metrics::new()));
        let process = ProcessAdmission::new(AdmissionControl::new(AdmissionLimits::default(), Arc::default()), bans);
        Self::new("test", AdmissionControl::new(limits, Arc::default()), process)
    }

    /// Changes the listener's limits and lists.
    pub fn set(&self, limits: AdmissionLimits, access: Arc<AccessList>) {
        self.listener.set(limits, access);
    }

    /// Returns the number of open connections, of the process and of the listener.
    pub fn open_counts(&self) -> (usize, usize) {
        (self.process.control.slots.taken(), self.listener.slots.taken())
    }

    /// Returns the bans, which all listeners share.
    pub fn bans(&self) -> &Bans {
        &self.process.bans
    }

    /// Returns the share of their time that unauthenticated peers get now: less than one if a limit is nearly reached.
    pub fn time_left_factor(&self) -> f64 {
        self.listener.slots.time_left_factor().min(self.process.control.slots.time_left_factor())
    }

    /// Returns the edges that connections may come through.
    pub fn edges(&self) -> &EdgeRegistry {
        &self.process.edges
    }

    /// Sets the gauge that shows the share of the listener's taken slots.
    pub fn set_gauge(&self, share: Gauge) {
        self.listener.set_gauge(share);
    }

    /// Checks a peer, which is perhaps a proxy, before anything else.
    ///
    /// # Errors
    /// Returns the ban or the list that refuses it.
    pub fn check_peer(&self, peer: IpAddr, now: Instant) -> Result<(), AdmissionError> {
        self.process.bans.check(peer, now)?;
        self.listener.rules().access.check_peer(peer)?;
        self.process.control.rules().access.check_peer(peer)
    }

    /// Admits a connection of a peer that is the player, and was checked.
    ///
    /// # Errors
    /// See [`admit_reported`](Self::admit_reported).
    pub fn admit(&self, player: SocketAddr, now: Instant) -> Result<AdmissionGuard, AdmissionError> {
        self.admit_reported(player, Reporter::Socket, now)
    }

    /// Admits a connection of `player`, which is known from the start, on the word of `reporter`. Only a player within
    /// all limits by address may evict another connection.
    ///
    /// # Errors
    /// Returns the ban, the list or the limit that refuses it; then nothing is counted except by rates.
    pub fn admit_reported(
        &self,
        player: SocketAddr,
        reporter: Reporter,
        now: Instant,
    ) -> Result<AdmissionGuard, AdmissionError> {
        if reporter != Reporter::Socket {
            self.process.bans.check_reported(reporter, player.ip(), now)?;
        }
        self.check(player)?;
        let address = AddressKey::reported(reporter, player.ip());
        self.listener.check_player(address, now).map_err(LimitHit::by_listener)?;
        self.process.control.check_player(address, now).map_err(LimitHit::by_process)?;
        let guard = self.take_slots(player, Some(address))?;
        guard.handle().set_player(player);
        Ok(guard)
    }

    /// Admits a connection of `peer` before its PROXY header has told the player. It counts in all, so that connections
    /// which never send a header are limited too; with fair share only few of them beyond the limit, and nobody is evicted
    /// for it before its player is known.
    ///
    /// # Errors
    /// Returns the limit that refuses it; then nothing is counted.
    pub fn admit_peer(&self, peer: SocketAddr) -> Result<AdmissionGuard, AdmissionError> {
        self.take_slots(peer, None)
    }

    /// Counts an admitted connection for its player too, once the player is known, on the word of `reporter`.
    ///
    /// # Errors
    /// Returns the ban, the list or the limit that refuses it. The connection still counts as before, until it is
    /// dropped.
    pub fn admit_player(
        &self,
        guard: &AdmissionGuard,
        (player, reporter): (SocketAddr, Reporter),
        now: Instant,
    ) -> Result<(), AdmissionError> {
        guard.handle().set_player(player);
        if reporter != Reporter::Socket {
            self.process.bans.check_reported(reporter, player.ip(), now)?;
        }
        self.check(player)?;
        let player = AddressKey::reported(reporter, player.ip());
        self.listener.check_player(player, now).map_err(LimitHit::by_listener)?;
        self.process.control.check_player(player, now).map_err(LimitHit::by_process)?;
        let refused = |exceeded| LimitHit::from(exceeded);
        let of_listener = guard.listener.claim(player).map_err(|limit| refused(limit).by_listener())?;
        self.evict(of_listener);
        let of_process = guard.process.claim(player).map_err(|limit| refused(limit).by_process())?;
        self.evict(of_process);
        Ok(())
    }

    fn check(&self, player: SocketAddr) -> Result<(), AdmissionError> {
        self.listener.rules().access.check(player.ip())?;
        self.process.control.rules().access.check(player.ip())
    }

    /// Takes slots of the listener and of the process, and closes connections that are evicted from them.
    fn take_slots(&self, peer: SocketAddr, player: Option<AddressKey>) -> Result<AdmissionGuard, AdmissionError> {
        let present = self.process.registry.enter(&self.name, peer);
        let id = present.handle().id();
        let refused = |exceeded| LimitHit::from(exceeded);
        let of_listener = self.listener.slots.take(id, player).map_err(|limit| refused(limit).by_listener())?;
        let listener = self.evict_from(of_listener);
        let of_process = self.process.control.slots.take(id, player).map_err(|limit| refused(limit).by_process())?;
        let process = self.evict_from(of_process);
        Ok(AdmissionGuard { registration: present, listener, process })
    }

    fn evict_from(&self, TakenSlot { slot, evicted }: TakenSlot) -> Slot {
        self.evict(evicted);
        slot
    }

    fn evict(&self, evicted: Option<u64>) {
        if let Some(evicted) = evicted {
            // At once, and not when its task has ended: the same connection shall not need two others' places.
            self.process.control.slots.free(evicted);
            if let Some(handle) = self.process.registry.get(evicted) {
                handle.close(Closing::Evicted);
            }
        }
    }
}

/// The guard of an admitted connection. Dropping it counts it off.
#[derive(Debug)]
pub struct AdmissionGuard {
    registration: Registration,
    listener: Slot,
    process: Slot,
}

impl AdmissionGuard {
    /// Returns the connection's handle.
    pub fn handle(&self) -> &Arc<ConnectionHandle> {
        self.registration.handle()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::admission::{BanMetrics, BanPolicy, HostKey};
    use crate::metrics::Metrics;
    use otproxy_config::AddressSet;
    use otproxy_protocol::quota::Quota;

    /// A trusted peer that says who the player is.
    const PEER: Reporter = Reporter::Peer(HostKey::V4(7));

    const NONE: AdmissionLimits = AdmissionLimits {
        connections: None,
        connections_per_address: None,
        rate_per_address: None,
        fair_share: false,
        pressure: false,
    };

    /// Makes admission with limits and without lists.
    fn gate(limits: AdmissionLimits) -> AdmissionControl {
        AdmissionControl::new(limits, Arc::default())
    }

    /// Makes bans by the operator alone.
    fn bans() -> Arc<Bans> {
        let rules = BanPolicy { after: None, lasting: Duration::from_secs(600), exempt: AddressSet::default() };
        Bans::new(rules, BanMetrics::new(&Metrics::new()))
    }

    fn at(address: &str) -> SocketAddr {
        SocketAddr::new(address.parse().unwrap(), 4000)
    }

    fn process(limits: AdmissionLimits) -> Arc<ProcessAdmission> {
        ProcessAdmission::new(gate(limits), bans())
    }

    fn come(admission: &ListenerAdmission, player: &str, now: Instant) -> Result<AdmissionGuard, AdmissionError> {
        admission.check_peer(at(player).ip(), now)?;
        admission.admit(at(player), now)
    }

    #[test]
    fn each_limit_refuses_for_its_own_reason() {
        let now = Instant::now();
        let rate = Some(Quota::per(1, Duration::from_secs(10)));
        for (limits, other, of_listener, of_process) in [
            (
                AdmissionLimits { connections: Some(1), ..NONE },
                "192.0.2.2",
                AdmissionError::Limit,
                AdmissionError::ProcessLimit,
            ),
            (
                AdmissionLimits { connections_per_address: Some(1), ..NONE },
                "192.0.2.1",
                AdmissionError::AddressLimit,
                AdmissionError::ProcessAddressLimit,
            ),
            (
                AdmissionLimits { rate_per_address: rate, ..NONE },
                "192.0.2.1",
                AdmissionError::Rate,
                AdmissionError::ProcessRate,
            ),
        ] {
            for (listener, process, reason) in [(limits, NONE, of_listener), (NONE, limits, of_process)] {
                let admission = ListenerAdmission::new("links", gate(listener), self::process(process));
                let _first = come(&admission, "192.0.2.1", now).unwrap();
                assert_eq!(come(&admission, other, now).err(), Some(reason));
                let totals = [&admission.listener, &admission.process.control].map(|gate| gate.slots.taken());
                assert_eq!(totals, [1, 1], "the refused one counts nowhere");
            }
        }
    }

    #[test]
    fn what_an_edge_claims_counts_through_that_edge_alone() {
        let (now, player) = (Instant::now(), at("192.0.2.1"));
        let rate = Some(Quota::per(2, Duration::from_secs(10)));
        for limits in [
            AdmissionLimits { connections_per_address: Some(2), ..NONE },
            AdmissionLimits { rate_per_address: rate, ..NONE },
            // The newest of the network with the most would give way, were it one network.
            AdmissionLimits { connections: Some(12), fair_share: true, ..NONE },
        ] {
            for (listener, process) in [(limits, NONE), (NONE, limits)] {
                let admission = ListenerAdmission::new("links", gate(listener), self::process(process));
                let others = [Reporter::Socket, Reporter::Edge(2), PEER];
                let mut held: Vec<_> =
                    others.map(|reporter| admission.admit_reported(player, reporter, now).unwrap()).into();
                let _stolen: Vec<_> =
                    (0..9).map(|_| admission.admit_reported(player, Reporter::Edge(1), now)).collect();
                assert!(held.iter().all(|guard| guard.handle().closing().is_none()), "{limits:?}");
                for reporter in others {
                    held.push(admission.admit_reported(player, reporter, now).unwrap());
                }
                let announced = admission.admit_peer(at("198.51.100.7")).unwrap();
                let other_peer = Reporter::Peer(HostKey::V4(8));
                assert_eq!(admission.admit_player(&announced, (player, other_peer), now), Ok(()));
            }
        }
    }

    #[test]
    fn all_listeners_share_the_gate_of_the_process() {
        let now = Instant::now();
        let process = process(AdmissionLimits {
            connections: Some(3),
            connections_per_address: Some(2),
            rate_per_address: Some(Quota::per(3, Duration::from_secs(10))),
            fair_share: false,
            pressure: false,
        });
        let [links, login] =
            ["links", "login"].map(|name| ListenerAdmission::new(name, gate(NONE), Arc::clone(&process)));
        let first = come(&links, "192.0.2.1", now).unwrap();
        let _second = come(&login, "192.0.2.1", now).unwrap();
        assert_eq!(come(&links, "192.0.2.1", now).err(), Some(AdmissionError::ProcessAddressLimit));
        let _third = come(&login, "192.0.2.2", now).unwrap();
        assert_eq!(links.admit_peer(at("192.0.2.3")).err(), Some(AdmissionError::ProcessLimit));
        drop(first);
        drop(come(&links, "192.0.2.1", now).unwrap());
        assert_eq!(come(&login, "192.0.2.1", now).err(), Some(AdmissionError::ProcessRate));
    }

    #[test]
    fn what_a_listener_refuses_takes_nothing_of_the_process() {
        let now = Instant::now();
        let two = Some(Quota::per(2, Duration::from_secs(10)));
        let process = process(AdmissionLimits { rate_per_address: two, ..NONE });
        let links = ListenerAdmission::new(
            "links",
            gate(AdmissionLimits { rate_per_address: Some(Quota::per(1, Duration::from_secs(10))), ..NONE }),
            Arc::clone(&process),
        );
        let login = ListenerAdmission::new("login", gate(NONE), process);
        assert!(come(&links, "2001:db8::1", now).is_ok());
        for _ in 0..10 {
            assert_eq!(
                come(&links, "2001:db8::2", now).err(),
                Some(AdmissionError::Rate),
                "an IPv6 /64 is one address"
            );
        }
        assert!(come(&login, "2001:db8::1", now).is_ok());
    }

    #[test]
    fn what_a_gate_goes_by_can_be_replaced_while_all_that_it_counts_stays() {
        let now = Instant::now();
        let admission = ListenerAdmission::new("links", gate(NONE), process(NONE));
        let held = [come(&admission, "192.0.2.1", now).unwrap(), come(&admission, "192.0.2.1", now).unwrap()];
        let denied = Arc::new(AccessList {
            deny: Arc::new([ipnet::IpNet::from(at("192.0.2.9").ip())].into_iter().collect()),
            allow: None,
        });
        admission.set(AdmissionLimits { connections_per_address: Some(2), ..NONE }, denied);
        assert_eq!(come(&admission, "192.0.2.1", now).err(), Some(AdmissionError::AddressLimit));
        assert_eq!(come(&admission, "192.0.2.9", now).err(), Some(AdmissionError::Denied));
        assert!(come(&admission, "192.0.2.2", now).is_ok());
        admission.set(AdmissionLimits { connections: Some(2), ..NONE }, Arc::default());
        assert_eq!(come(&admission, "192.0.2.9", now).err(), Some(AdmissionError::Limit));
        drop(held);
        let once =
            |seconds| AdmissionLimits { rate_per_address: Some(Quota::per(1, Duration::from_secs(seconds))), ..NONE };
        admission.set(once(10), Arc::default());
        assert!(come(&admission, "192.0.2.9", now).is_ok());
        admission.set(once(20), Arc::default());
        assert_eq!(come(&admission, "192.0.2.9", now).err(), Some(AdmissionError::Rate), "it is known that he came");
        admission.process.control.set(AdmissionLimits { connections: Some(0), ..NONE }, Arc::default());
        assert_eq!(come(&admission, "192.0.2.2", now).err(), Some(AdmissionError::ProcessLimit));
    }

    #[test]
    fn each_list_refuses_whatever_the_other_says() {
        let now = Instant::now();
        let access = |deny: &str, allow: Option<&str>| {
            let set = |network: &str| Arc::new(std::iter::once(network.parse::<ipnet::IpNet>().unwrap()).collect());
            Arc::new(AccessList { deny: set(deny), allow: allow.map(set) })
        };
        let process =
            ProcessAdmission::new(AdmissionControl::new(NONE, access("192.0.2.0/24", Some("10.0.0.0/9"))), bans());
        let admission = ListenerAdmission::new(
            "links",
            AdmissionControl::new(NONE, access("10.0.0.0/24", Some("10.0.0.0/8"))),
            process,
        );
        for (player, verdict) in [
            ("10.1.0.1", None),
            ("10.0.0.1", Some(AdmissionError::Denied)),
            ("10.200.0.1", Some(AdmissionError::NotAllowed)),
            ("192.0.2.1", Some(AdmissionError::Denied)),
            ("198.51.100.1", Some(AdmissionError::NotAllowed)),
            ("2001:db8::1", Some(AdmissionError::NotAllowed)),
        ] {
            assert_eq!(come(&admission, player, now).err(), verdict, "{player}");
        }
        // A proxy need not be among the players, and is as unwelcome as they are where it is denied.
        assert_eq!(admission.check_peer(at("198.51.100.1").ip(), now), Ok(()));
        let guard = admission.admit_peer(at("198.51.100.1")).unwrap();
        assert_eq!(admission.admit_player(&guard, (at("10.1.0.1"), PEER), now), Ok(()));
        for denied in ["192.0.2.1", "10.0.0.1"] {
            assert_eq!(admission.check_peer(at(denied).ip(), now), Err(AdmissionError::Denied), "{denied}");
        }
        assert_eq!(admission.listener.slots.taken(), 1, "the denied count nowhere");
    }

    /// Lets in a crowd of one address; the numbers of its connections that were closed as `evicted` since then, in
    /// order.
    fn crowd(admission: &ListenerAdmission, count: usize) -> (Vec<AdmissionGuard>, impl Fn() -> Vec<u64>) {
        let crowd: Vec<_> = (0..count).map(|_| come(admission, "10.0.0.1", Instant::now()).unwrap()).collect();
        let presences: Vec<_> = crowd.iter().map(|guard| Arc::clone(guard.handle())).collect();
        let evicted = move || {
            let evicted = presences.iter().filter(|handle| handle.closing() == Some(Closing::Evicted));
            evicted.map(|handle| handle.id()).collect()
        };
        (crowd, evicted)
    }

    #[test]
    fn a_crowd_makes_room_for_who_has_less_at_each_gate() {
        let (now, fair) = (Instant::now(), AdmissionLimits { connections: Some(3), fair_share: true, ..NONE });
        for (listener, process) in [(fair, NONE), (NONE, fair), (fair, fair)] {
            let admission = ListenerAdmission::new("links", gate(listener), self::process(process));
            let (held, evicted) = crowd(&admission, 3);
            let _one = come(&admission, "192.0.2.1", now).unwrap();
            assert_eq!(evicted(), [3], "one place, though both gates are full");
            assert_eq!(admission.open_counts().0, 3, "it is gone at once");
            let other = admission.admit_peer(at("198.51.100.1")).unwrap();
            assert_eq!(evicted(), [3], "nobody knows yet for whom it would be");
            assert_eq!(admission.admit_player(&other, (at("203.0.113.1"), PEER), now), Ok(()));
            assert_eq!(evicted(), [2, 3]);
            assert!(come(&admission, "10.0.0.1", now).is_err(), "nobody has more than this one");
            drop(held);
            assert_eq!(admission.open_counts(), (2, 2));
        }
    }

    #[test]
    fn who_is_refused_takes_nobody_s_place() {
        let now = Instant::now();
        let rate = Some(Quota::per(3, Duration::from_secs(10)));
        let limits = AdmissionLimits { rate_per_address: rate, connections_per_address: Some(4), ..NONE };
        let full = AdmissionLimits { connections: Some(4), fair_share: true, ..NONE };
        for (listener, process) in [
            (AdmissionLimits { rate_per_address: rate, ..full }, NONE),
            (AdmissionLimits { connections_per_address: Some(1), ..full }, NONE),
            (full, limits),
            (limits, full),
        ] {
            let admission = ListenerAdmission::new("links", gate(listener), self::process(process));
            let crowd: Vec<_> =
                ["10.0.0.1", "10.0.0.2", "10.0.0.3"].map(|player| come(&admission, player, now).unwrap()).into();
            let _own = come(&admission, "192.0.2.1", now).unwrap();
            // Beyond what its address may have, one way or the other.
            let refused = (0..6).filter(|_| come(&admission, "192.0.2.1", now).is_err()).count();
            assert!(refused >= 4, "{refused}");
            let evicted = crowd.iter().filter(|guard| guard.handle().closing().is_some()).count();
            assert!(evicted <= 6 - refused, "{evicted}");
        }
    }

    #[test]
    fn the_place_on_another_listener_is_free_when_its_connection_has_ended() {
        let now = Instant::now();
        let process = process(AdmissionLimits { connections: Some(2), fair_share: true, ..NONE });
        let one = ListenerAdmission::new("links", gate(NONE), Arc::clone(&process));
        let other = ListenerAdmission::new("login", gate(NONE), process);
        let (mut held, evicted) = crowd(&one, 2);
        let _come = come(&other, "192.0.2.1", now).unwrap();
        assert_eq!((evicted(), one.open_counts(), other.open_counts()), (vec![2], (2, 2), (2, 1)));
        held.pop();
        assert_eq!(one.open_counts(), (2, 1));
    }

    #[test]
    fn who_passed_is_on_the_roster_and_who_is_refused_is_not() {
        let now = Instant::now();
        let admission =
            ListenerAdmission::new("links", gate(AdmissionLimits { connections: Some(1), ..NONE }), process(NONE));
        let registry = Arc::clone(admission.process.registry());
        assert_eq!(admission.check_peer(at("198.51.100.1").ip(), now), Ok(()));
        let guard = admission.admit_peer(at("198.51.100.1")).unwrap();
        assert!(admission.admit_peer(at("198.51.100.2")).is_err());
        let there = registry.select(|_| true);
        assert_eq!(there.len(), 1);
        assert_eq!((there[0].listener(), there[0].peer(), there[0].player()), ("links", at("198.51.100.1"), None));
        admission.admit_player(&guard, (at("10.1.0.1"), PEER), now).unwrap();
        assert_eq!(there[0].player(), Some(at("10.1.0.1")));
        drop(guard);
        assert!(registry.select(|_| true).is_empty());
    }
    #[test]
    fn who_is_banned_is_refused_as_a_peer_and_as_a_player_and_counts_nowhere() {
        let now = Instant::now();
        let rate = Some(Quota::per(1, Duration::from_secs(10)));
        let admission =
            ListenerAdmission::new("links", gate(AdmissionLimits { rate_per_address: rate, ..NONE }), process(NONE));
        let lasting = Duration::from_secs(60);
        admission.bans().ban("192.0.2.0/24".parse().unwrap(), lasting, now);
        for _ in 0..3 {
            assert_eq!(admission.check_peer(at("192.0.2.1").ip(), now), Err(AdmissionError::Banned));
            let guard = admission.admit_peer(at("198.51.100.1")).unwrap();
            assert_eq!(admission.admit_player(&guard, (at("192.0.2.1"), PEER), now), Err(AdmissionError::Banned));
        }
        assert_eq!(admission.open_counts(), (0, 0));
        assert!(come(&admission, "192.0.2.1", now + lasting).is_ok(), "what was refused has used up his rate");
    }
}
