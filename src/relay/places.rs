//! The places of sessions within `sessions.max` and `sessions.max_per_address`, and their memory within `sessions.memory`,
//! over all workers.

use std::cell::Cell;
use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use prometheus::IntGauge;

use super::Relay;
use super::client::{RelayMachine, tell};
use crate::admission::{AddressKey, AdmissionLimits, LimitExceeded, Network, Slot, Slots, TakenSlot};
use otproxy_config::SessionsConfig;
use otproxy_protocol::core::{EndReason, SessionKey};
use otproxy_protocol::frame::{ClientId, SessionId};

/// The step in which a session's memory is counted: so the lock is touched seldom, and never by a session that keeps
/// little.
const STEP: usize = 4 * 1024;
/// The memory beyond its own that goes on counting for a session, whose backlog goes up and down.
const SLACK: usize = 2 * STEP;

/// The places of all sessions. They are shared fairly by network, as those of connections are.
#[derive(Debug)]
pub(super) struct SessionPlaces {
    slots: Arc<Slots>,
    /// Locked when a session begins or ends, or its memory grows or shrinks by a step.
    state: Mutex<State>,
    /// The gauges of the memory of all sessions and of its limit.
    shown: OnceLock<MemoryGauges>,
}

/// The gauges of memory, bytes.
#[derive(Debug)]
struct MemoryGauges {
    kept: IntGauge,
    /// 0 without a limit.
    limit: IntGauge,
}

#[derive(Debug, Default)]
struct State {
    last: u64,
    /// The sessions by the numbers of their places.
    sessions: HashMap<u64, Entry>,
    /// The memory of all sessions, bytes, and the limit of it.
    memory: usize,
    max_memory: usize,
    by_network: HashMap<Network, usize>,
    /// The networks, that with the most memory last.
    networks: BTreeSet<(usize, Network)>,
    /// The sessions whose places can be spared, of each address those that have ended first, and of these the oldest.
    spare: BTreeSet<(AddressKey, Spare, u64, u64)>,
    /// Those that have ended, the oldest first.
    ended: BTreeSet<(u64, u64)>,
    /// The limit of sessions in all.
    max: usize,
    /// The sessions of each network that keep something, the largest last.
    by_size: BTreeSet<(Network, usize, u64)>,
}

#[derive(Debug)]
struct Entry {
    player: AddressKey,
    holder: SessionHolder,
    memory: usize,
    /// It has to end, and its memory counts no more.
    ending: bool,
    /// Its place can be spared, and since when: a number that grows.
    spare: Option<(Spare, u64)>,
    /// Its place was given to another session.
    given: bool,
}

/// A session whose place can be spared: for its own address once that has no other left, and for anybody if it has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Spare {
    /// It has ended, and is there for what its client has not acknowledged.
    Ended,
    /// No link carries it: its client may have crashed, and its player is back as another one.
    WithoutLinks,
}

/// The session that holds a place: the worker that carries it, and its name there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionHolder {
    /// The index of the worker.
    pub worker: usize,
    /// The client.
    pub client: ClientId,
    /// The session.
    pub session: SessionId,
    /// The number of the place, which no other session has or had.
    pub place: u64,
}

/// The place of a session. Dropping it frees the place, unless it was given to another session before, and its memory.
#[derive(Debug)]
pub(super) struct SessionPlace {
    places: Arc<SessionPlaces>,
    pub number: u64,
    _slot: Slot,
    /// The memory that counts for it.
    memory: Cell<usize>,
    spare: Cell<Option<Spare>>,
}

impl SessionPlace {
    /// Returns whether the memory that counts for the session still fits what it keeps.
    #[inline]
    pub fn fits(&self, kept: usize) -> bool {
        let memory = self.memory.get();
        kept <= memory && memory - kept <= SLACK
    }

    /// Returns whether the place can be spared.
    #[inline]
    pub fn is_spare(&self) -> bool {
        self.spare.get().is_some()
    }

    /// Says whether the place can be spared.
    #[inline]
    pub fn set_spare(&self, spare: Option<Spare>) {
        if self.spare.get() != spare {
            self.spare.set(spare);
            self.places.state.lock().set_spare(self.number, spare);
        }
    }

    /// Counts what the session keeps now, in bytes. Returns the sessions that have to end for it, if that is more than
    /// all may keep together: the largest of the network that keeps the most.
    pub fn count(&self, kept: usize) -> Vec<SessionHolder> {
        let memory = kept.next_multiple_of(STEP);
        let mut state = self.places.state.lock();
        state.count(self.number, memory);
        self.memory.set(memory);
        let largest = std::iter::from_fn(|| state.end_largest()).collect();
        self.places.show(&state);
        largest
    }
}

impl Drop for SessionPlace {
    fn drop(&mut self) {
        self.places.forget(self.number);
    }
}

impl State {
    /// Changes the memory that counts for a session.
    fn count(&mut self, number: u64, memory: usize) {
        let Some(entry) = self.sessions.get_mut(&number).filter(|entry| !entry.ending) else { return };
        let (network, before) = (entry.player.into(), std::mem::replace(&mut entry.memory, memory));
        let of_network = self.by_network.entry(network).or_default();
        self.networks.remove(&(*of_network, network));
        *of_network = *of_network - before + memory;
        if *of_network > 0 {
            self.networks.insert((*of_network, network));
        } else {
            self.by_network.remove(&network);
        }
        self.by_size.remove(&(network, before, number));
        if memory > 0 {
            self.by_size.insert((network, memory, number));
        }
        self.memory = self.memory - before + memory;
    }

    fn set_spare(&mut self, number: u64, spare: Option<Spare>) {
        self.last += 1;
        let since = self.last;
        let Some(entry) = self.sessions.get_mut(&number) else { return };
        let spare = spare.filter(|_| !entry.given).map(|spare| (spare, since));
        if let Some((before, since)) = std::mem::replace(&mut entry.spare, spare) {
            self.spare.remove(&(entry.player, before, since, number));
            self.ended.remove(&(since, number));
        }
        if let Some((spare, since)) = spare {
            self.spare.insert((entry.player, spare, since, number));
            if spare == Spare::Ended {
                self.ended.insert((since, number));
            }
        }
    }

    /// Returns the session of an address whose place can be spared first.
    fn spare_of(&self, player: AddressKey) -> Option<u64> {
        let all = (player, Spare::Ended, 0, 0)..=(player, Spare::WithoutLinks, u64::MAX, u64::MAX);
        self.spare.range(all).next().map(|(.., number)| *number)
    }

    /// Takes its place from a session.
    fn give(&mut self, number: u64) -> Option<SessionHolder> {
        self.set_spare(number, None);
        let entry = self.sessions.get_mut(&number)?;
        entry.given = true;
        Some(entry.holder)
    }

    /// If sessions keep more than they may: takes its memory from the largest of the network that keeps the most, which
    /// has to end.
    fn end_largest(&mut self) -> Option<SessionHolder> {
        if self.memory <= self.max_memory {
            return None;
        }
        let (_, network) = *self.networks.last()?;
        let (.., number) = *self.by_size.range((network, 0, 0)..=(network, usize::MAX, u64::MAX)).next_back()?;
        self.count(number, 0);
        let entry = self.sessions.get_mut(&number)?;
        entry.ending = true;
        Some(entry.holder)
    }
}

fn limits(sessions: &SessionsConfig) -> AdmissionLimits {
    AdmissionLimits {
        connections: Some(sessions.max),
        connections_per_address: Some(sessions.max_per_address),
        fair_share: true,
        ..AdmissionLimits::default()
    }
}

impl SessionPlaces {
    /// Makes places that are all free.
    pub fn new(config: &SessionsConfig) -> Arc<Self> {
        let slots = Slots::new(&limits(config));
        let places = Self { slots, state: Mutex::default(), shown: OnceLock::new() };
        places.set(config);
        Arc::new(places)
    }

    /// Has no limit hold until they are [set](Self::set) again.
    pub fn lift(&self) {
        self.slots.set(&AdmissionLimits::default());
        let mut state = self.state.lock();
        (state.max, state.max_memory) = (usize::MAX, usize::MAX);
    }

    /// Changes the limits. Sessions keep their places, and their memory until one of them keeps more.
    pub fn set(&self, config: &SessionsConfig) {
        self.slots.set(&limits(config));
        let mut state = self.state.lock();
        (state.max, state.max_memory) = (config.max, config.memory.unwrap_or(usize::MAX));
        self.show(&state);
    }

    /// Sets the gauges of the memory of all sessions, and of its limit.
    pub fn set_gauges(&self, kept: IntGauge, limit: IntGauge) {
        let _ = self.shown.set(MemoryGauges { kept, limit });
        self.show(&self.state.lock());
    }

    /// Returns the number of sessions that go on.
    pub fn total(&self) -> usize {
        self.slots.taken().saturating_sub(self.state.lock().ended.len())
    }

    /// Checks that an address may have one more session, if need be in place of one that can be spared.
    ///
    /// # Errors
    /// [`LimitExceeded::Address`]
    pub fn check_address(&self, player: AddressKey) -> Result<(), LimitExceeded> {
        let spared = |_: &LimitExceeded| self.state.lock().spare_of(player).is_some();
        self.slots.check_address(player).or_else(|error| if spared(&error) { Ok(()) } else { Err(error) })
    }

    /// Takes a place for a session of `player`. Returns the sessions that it was taken from too, which must end: of this
    /// address one that can be spared, and of all the oldest that has ended, or else the newest of the address with the
    /// most sessions, in the network with the most.
    ///
    /// # Errors
    /// Returns the limit that is reached, where nobody has more sessions.
    pub fn enter(
        self: &Arc<Self>,
        player: AddressKey,
        holder: impl FnOnce(u64) -> SessionHolder,
    ) -> Result<(SessionPlace, Vec<SessionHolder>), LimitExceeded> {
        let mut evicted = Vec::new();
        let mut spare = |number: &dyn Fn(&State) -> Option<u64>| {
            let mut state = self.state.lock();
            if let Some(number) = number(&state) {
                evicted.extend(state.give(number));
                drop(state);
                self.slots.free(number);
            }
        };
        if self.slots.check_address(player).is_err() {
            spare(&|state| state.spare_of(player));
        }
        if self.slots.taken() >= self.state.lock().max {
            spare(&|state| state.ended.first().map(|(_, number)| *number));
        }
        let number = {
            let mut state = self.state.lock();
            state.last += 1;
            let number = state.last;
            // Before the slot: once that is taken, another worker may find whose it is.
            state.sessions.insert(
                number,
                Entry { player, holder: holder(number), memory: 0, ending: false, spare: None, given: false },
            );
            number
        };
        let taken = self.slots.take(number, Some(player));
        let TakenSlot { slot, evicted: newest } = taken.inspect_err(|_| self.forget(number))?;
        evicted.extend(newest.and_then(|newest| self.state.lock().give(newest)));
        let (places, memory, spare) = (Arc::clone(self), Cell::new(0), Cell::new(None));
        Ok((SessionPlace { places, number, _slot: slot, memory, spare }, evicted))
    }

    fn forget(&self, number: u64) {
        let mut state = self.state.lock();
        state.count(number, 0);
        state.set_spare(number, None);
        state.sessions.remove(&number);
        self.show(&state);
    }

    fn show(&self, state: &State) {
        if let Some(MemoryGauges { kept, limit }) = self.shown.get() {
            kept.set(i64::try_from(state.memory).unwrap_or(i64::MAX));
            limit.set(if state.max_memory == usize::MAX {
                0
            } else {
                i64::try_from(state.max_memory).unwrap_or(i64::MAX)
            });
        }
    }
}

impl Relay {
    /// Counts the memory of a session, after something has changed in what it keeps.
    #[inline]
    pub(super) fn count_memory(&self, machine: &RelayMachine, key: SessionKey) {
        let Some(session) = machine.session(key) else { return };
        let kept = machine.kept(key);
        if !session.place.fits(kept) {
            session.place.count(kept).into_iter().for_each(|largest| self.shared.end(largest, EndReason::Memory));
        }
    }

    /// Ends a session of this worker, if it still holds its place, and tells its client.
    pub(super) fn end_session(&self, holder: SessionHolder, reason: EndReason) {
        let Some(client) = self.clients.borrow().get(&holder.client).cloned() else { return };
        let mut machine = client.machine.borrow_mut();
        let key = machine.sessions().find(|(id, _)| *id == holder.session).map(|(_, key)| key);
        let Some(key) = key else { return };
        let Some(session) = machine.session(key).filter(|session| session.place.number == holder.place).cloned() else {
            return;
        };
        if reason == EndReason::Evicted {
            // Its place was the last thing that it was kept for, if it had ended before.
            if machine.ended(key).is_some() { machine.keep_no_longer(key) } else { machine.give_up(key, reason) }
        }
        machine.end(key, reason);
        if reason == EndReason::Memory {
            let what = "ended: sessions.memory is reached, and it kept the most of the network that keeps the most";
            self.warn(session.player, (holder.client, holder.session), &what);
        }
        // What counts no more takes no more, unless links bring it to the client now.
        if reason == EndReason::Memory || machine.links_of(key, 0).is_none() {
            self.metrics.relay_unacked_bytes.sub(machine.discard(key) as i64);
        }
        tell(&mut machine, key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use otproxy_config::{Config, parse};

    /// Returns places with this much memory.
    fn places(memory: &str) -> Arc<SessionPlaces> {
        places_with(&format!("memory: {memory}"))
    }

    fn places_with(sessions: &str) -> Arc<SessionPlaces> {
        let text = format!(
            "role: core\nlisteners: [{{ name: links, kind: relay, listen: '127.0.0.1:1', accept_proxy: none }}]\n\
             game_servers: [{{ port: 7172, address: '127.0.0.1:2' }}]\nsessions: {{ {sessions} }}\n"
        );
        let Config::Core(core) = parse("core.yaml", &text).unwrap() else { panic!("a core") };
        SessionPlaces::new(&core.sessions)
    }

    fn enter(places: &Arc<SessionPlaces>, address: &str) -> SessionPlace {
        let address = address.parse::<std::net::IpAddr>().unwrap().into();
        let holder = |place| SessionHolder { worker: 0, client: ClientId(0), session: SessionId(0), place };
        places.enter(address, holder).unwrap().0
    }

    /// Enters one more; returns the places that it was given, if it was let in.
    fn enters(places: &Arc<SessionPlaces>, address: &str) -> Option<(SessionPlace, Vec<u64>)> {
        let address = address.parse::<std::net::IpAddr>().unwrap().into();
        let holder = |place| SessionHolder { worker: 0, client: ClientId(0), session: SessionId(0), place };
        places.check_address(address).ok()?;
        let (place, evicted) = places.enter(address, holder).ok()?;
        Some((place, numbers(evicted)))
    }

    fn memory(places: &SessionPlaces) -> usize {
        places.state.lock().memory
    }

    fn numbers(ended: Vec<SessionHolder>) -> Vec<u64> {
        ended.iter().map(|holder| holder.place).collect()
    }

    #[test]
    fn memory_is_counted_in_steps_and_seldom() {
        let places = places("none");
        let place = enter(&places, "10.0.0.1");
        assert!(place.fits(0) && !place.fits(1));
        for (kept, counted) in [(1, STEP), (STEP, STEP), (STEP + 1, 2 * STEP), (10 * STEP, 10 * STEP), (STEP, STEP)] {
            assert_eq!(numbers(place.count(kept)), [0; 0]);
            assert_eq!(memory(&places), counted);
            assert!(place.fits(kept) && place.fits(counted) && !place.fits(counted + 1), "{kept}");
        }
        // A backlog that goes up and down is none of the lock's business.
        place.count(3 * STEP);
        assert!(place.fits(STEP) && place.fits(2 * STEP) && !place.fits(STEP - 1));
        drop(place);
        assert_eq!(memory(&places), 0);
    }

    #[test]
    fn gauges_show_the_memory_and_its_limit() {
        let places = places_with("memory: 1MiB");
        let gauge = |name: &str| IntGauge::new(name, "Bytes.").unwrap();
        let (kept, limit) = (gauge("kept"), gauge("limit"));
        places.set_gauges(kept.clone(), limit.clone());
        let place = enter(&places, "10.0.0.1");
        place.count(1);
        assert_eq!((kept.get(), limit.get()), (STEP as i64, 1 << 20));
        places.lift();
        drop(place);
        assert_eq!((kept.get(), limit.get()), (0, 0), "without a limit");
    }

    #[test]
    fn a_newcomer_has_the_place_of_a_session_of_its_address_without_links_the_oldest_first() {
        let places = places_with("max_per_address: 3");
        let [a, b, c] = ["10.0.0.1"; 3].map(|address| enter(&places, address));
        let other = enter(&places, "10.0.0.2");
        other.set_spare(Some(Spare::WithoutLinks));
        assert!(enters(&places, "10.0.0.1").is_none(), "links carry all three");
        b.set_spare(Some(Spare::WithoutLinks));
        a.set_spare(Some(Spare::WithoutLinks));
        c.set_spare(Some(Spare::Ended));
        let (d, given) = enters(&places, "10.0.0.1").unwrap();
        assert_eq!(given, [c.number], "the one that has ended first of all");
        let (_e, given) = enters(&places, "10.0.0.1").unwrap();
        assert_eq!(given, [b.number], "then the one that has been without for the longest");
        // It was carried again before it had heard of it: its place is gone all the same, and once only.
        b.set_spare(None);
        b.set_spare(Some(Spare::WithoutLinks));
        a.set_spare(None);
        assert!(enters(&places, "10.0.0.1").is_none(), "a is carried again");
        drop((b, c));
        assert!(enters(&places, "10.0.0.1").is_none(), "places that were given are not free");
        drop(d);
        assert!(enters(&places, "10.0.0.1").is_some_and(|(_, given)| given.is_empty()));
        assert_eq!(places.total(), 3);
    }

    #[test]
    fn the_place_of_a_session_that_has_ended_is_anybodys_and_goes_first() {
        let places = places_with("max: 3");
        let [ended, lingering, carried] = ["10.0.0.1", "10.0.0.2", "10.0.0.3"].map(|address| enter(&places, address));
        lingering.set_spare(Some(Spare::WithoutLinks));
        assert!(enters(&places, "10.0.0.4").is_none(), "its network has as many as any");
        ended.set_spare(Some(Spare::Ended));
        let (new, given) = enters(&places, "10.0.0.4").unwrap();
        assert_eq!((given, places.total()), (vec![ended.number], 3));
        assert!(enters(&places, "10.0.0.5").is_none());
        drop((ended, lingering, carried, new));
        assert_eq!(places.total(), 0);
        let state = places.state.lock();
        assert_eq!((state.spare.len(), state.ended.len(), state.sessions.len()), (0, 0, 0));
    }

    #[test]
    fn the_largest_session_of_the_largest_network_gives_way() {
        let places = places("80KiB");
        let crowd = ["10.0.0.1", "10.0.0.2", "10.0.0.3"].map(|address| enter(&places, address));
        let other = enter(&places, "192.0.2.1");
        for (place, kept) in crowd.iter().zip([4, 5, 6]) {
            assert_eq!(numbers(place.count(kept * STEP)), [0; 0]);
        }
        // The largest of all sessions, but no network.
        assert_eq!(numbers(other.count(7 * STEP)), [crowd[2].number]);
        assert_eq!(memory(&places), 16 * STEP);
        // What it still takes until it has ended is not counted a second time.
        assert_eq!(numbers(crowd[2].count(9 * STEP)), [0; 0]);
        assert_eq!(memory(&places), 16 * STEP);
        // A session that makes itself the largest ends itself.
        assert_eq!(numbers(other.count(20 * STEP)), [other.number]);
        drop((crowd, other));
        assert_eq!(places.total(), 0);
        let state = places.state.lock();
        let left = (state.sessions.len(), state.by_network.len(), state.networks.len(), state.by_size.len());
        assert_eq!((state.memory, left), (0, (0, 0, 0, 0)));
    }
}
