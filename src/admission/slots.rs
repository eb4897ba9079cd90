//! Connections or sessions at once, in all and by player address, and the choice of the one to evict when all slots are
//! taken.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use parking_lot::{Mutex, MutexGuard};
use prometheus::Gauge;

use super::fair_share::FairShare;
use super::pressure;
use super::{AddressKey, AdmissionLimits, LimitExceeded};

/// Connections beyond the limit whose player is unknown yet, with fair share: nobody is evicted for them, and as soon as
/// their headers have come they are within it. Of more, the one that waits the longest gives way.
pub const HEADERLESS: usize = 64;

/// Slots for connections or sessions, over all workers, behind one lock that is held when one begins and when it ends.
#[derive(Debug)]
pub struct Slots {
    state: Mutex<State>,
    /// Copies of `state`, to be read without the lock.
    taken: AtomicUsize,
    max: AtomicUsize,
    pressure: AtomicBool,
    /// The gauge of the taken share.
    shown: OnceLock<Gauge>,
}

#[derive(Debug)]
struct State {
    max: usize,
    max_per_address: usize,
    fair_share: bool,
    /// The connections that have a slot, each with its player if known.
    taken: HashMap<u64, Option<AddressKey>>,
    /// Those whose player is unknown, the oldest first.
    unknown: BTreeSet<u64>,
    /// Connections of known players; empty while no limit needs it.
    shares: FairShare,
}

impl Slots {
    /// Makes slots that are all free.
    pub fn new(limits: &AdmissionLimits) -> Arc<Self> {
        let state = State {
            max: usize::MAX,
            max_per_address: usize::MAX,
            fair_share: false,
            taken: HashMap::new(),
            unknown: BTreeSet::new(),
            shares: FairShare::default(),
        };
        let slots = Self {
            state: Mutex::new(state),
            taken: AtomicUsize::new(0),
            max: AtomicUsize::new(usize::MAX),
            pressure: AtomicBool::new(false),
            shown: OnceLock::new(),
        };
        slots.set(limits);
        Arc::new(slots)
    }

    /// Changes the limits. Connections keep their slots.
    pub fn set(&self, limits: &AdmissionLimits) {
        let mut state = self.state();
        let counted = state.is_limited();
        state.max = limits.connections.unwrap_or(usize::MAX);
        state.max_per_address = limits.connections_per_address.unwrap_or(usize::MAX);
        state.fair_share = limits.fair_share;
        // New connections wait meanwhile, so it is not done with each reload.
        if state.is_limited() != counted {
            state.recount();
        }
        self.max.store(state.max, Ordering::Relaxed);
        self.pressure.store(limits.pressure, Ordering::Relaxed);
        self.count(&state);
    }

    /// Sets the gauge of the taken share.
    pub fn set_gauge(&self, share: Gauge) {
        let _ = self.shown.set(share);
        self.count(&self.state());
    }

    /// Returns the share of their time that unauthenticated peers get, by the number of taken slots.
    pub fn time_left_factor(&self) -> f64 {
        if self.pressure.load(Ordering::Relaxed) { pressure::part(self.share()) } else { 1.0 }
    }

    /// Returns the taken share: 0 without a limit, and more than 1 if a reload has lowered it.
    fn share(&self) -> f64 {
        match self.max.load(Ordering::Relaxed) {
            usize::MAX => 0.0,
            max => self.taken() as f64 / max.max(1) as f64,
        }
    }

    /// Takes a slot for a connection, whose player may be unknown yet, until the slot is dropped. A newer connection
    /// has a higher number.
    ///
    /// # Errors
    /// Returns the limit that is reached; then nothing is counted.
    pub fn take(self: &Arc<Self>, connection: u64, player: Option<AddressKey>) -> Result<TakenSlot, LimitExceeded> {
        let mut state = self.state();
        if let Some(player) = player {
            state.check_address(player)?;
            state.add(player, connection);
        }
        let room = state.make_room(player);
        let evicted =
            room.inspect_err(|_| player.iter().for_each(|player| state.shares.remove(*player, connection)))?;
        state.taken.insert(connection, player);
        if player.is_none() {
            state.unknown.insert(connection);
        }
        self.count(&state);
        Ok(TakenSlot { slot: Slot { slots: Arc::clone(self), connection }, evicted })
    }

    /// Checks that a connection of this player would be within the limit of its address.
    ///
    /// # Errors
    /// [`LimitExceeded::Address`]
    pub fn check_address(&self, player: AddressKey) -> Result<(), LimitExceeded> {
        self.state().check_address(player)
    }

    /// Takes the slot away from a connection.
    pub fn free(&self, connection: u64) {
        let mut state = self.state();
        state.free(connection);
        self.count(&state);
    }

    /// Returns the number of taken slots.
    pub fn taken(&self) -> usize {
        self.taken.load(Ordering::Relaxed)
    }

    fn count(&self, state: &State) {
        self.taken.store(state.taken.len(), Ordering::Relaxed);
        if let Some(share) = self.shown.get() {
            share.set(self.share());
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing that can panic runs under the lock.
        self.state.lock()
    }
}

impl State {
    /// Returns whether any limit needs the shares.
    fn is_limited(&self) -> bool {
        (self.max, self.max_per_address) != (usize::MAX, usize::MAX)
    }

    fn add(&mut self, player: AddressKey, connection: u64) {
        if self.is_limited() {
            self.shares.add(player, connection);
        }
    }

    /// Counts the shares if a limit was added, and forgets them if none is left.
    fn recount(&mut self) {
        self.shares = FairShare::default();
        if self.is_limited() {
            let known = self.taken.iter().filter_map(|(connection, player)| Some((*connection, (*player)?)));
            known.for_each(|(connection, player)| self.shares.add(player, connection));
        }
    }

    fn check_address(&self, player: AddressKey) -> Result<(), LimitExceeded> {
        if self.shares.of(player) < self.max_per_address { Ok(()) } else { Err(LimitExceeded::Address) }
    }

    /// Makes room for one more connection of `player`, whose share counts it already; returns the connection that was
    /// evicted, if one had to be.
    fn make_room(&mut self, player: Option<AddressKey>) -> Result<Option<u64>, LimitExceeded> {
        let known = self.taken.len() - self.unknown.len();
        let evicted = match player {
            _ if !self.fair_share && self.taken.len() >= self.max => None,
            Some(player) if known >= self.max => self.shares.evicted_by(player),
            _ if self.taken.len() >= self.max.saturating_add(HEADERLESS) => self.unknown.first().copied(),
            _ => return Ok(None),
        };
        let evicted = evicted.ok_or(LimitExceeded::Total)?;
        self.free(evicted);
        Ok(Some(evicted))
    }

    fn free(&mut self, connection: u64) {
        self.unknown.remove(&connection);
        if let Some(Some(player)) = self.taken.remove(&connection) {
            self.shares.remove(player, connection);
        }
    }
}

/// A slot that was taken.
#[derive(Debug)]
pub struct TakenSlot {
    /// The slot.
    pub slot: Slot,
    /// The connection that it was taken from, which must be closed.
    pub evicted: Option<u64>,
}

/// The slot of one connection. Dropping it frees the slot, unless it was given to another connection before.
#[derive(Debug)]
pub struct Slot {
    slots: Arc<Slots>,
    connection: u64,
}

impl Slot {
    /// Sets its player, once known. Returns the connection that was evicted for it, which must be closed. Later calls have
    /// no effect.
    ///
    /// # Errors
    /// Returns the limit that is reached; the connection goes on counting as one of an unknown player.
    pub fn claim(&self, player: AddressKey) -> Result<Option<u64>, LimitExceeded> {
        let mut state = self.slots.state();
        // A connection that has lost its slot learns of it in another way.
        if !state.unknown.contains(&self.connection) {
            return Ok(None);
        }
        state.check_address(player)?;
        state.add(player, self.connection);
        // Without fair share it has had its slot from the start.
        let evicted = if state.fair_share { state.make_room(Some(player)) } else { Ok(None) };
        let evicted = evicted.inspect_err(|_| state.shares.remove(player, self.connection))?;
        state.taken.insert(self.connection, Some(player));
        state.unknown.remove(&self.connection);
        self.slots.count(&state);
        Ok(evicted)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.slots.free(self.connection);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU64;

    use super::*;

    const NONE: AdmissionLimits = AdmissionLimits {
        connections: None,
        connections_per_address: None,
        rate_per_address: None,
        fair_share: true,
        pressure: true,
    };

    fn slots(connections: usize, fair_share: bool) -> Arc<Slots> {
        Slots::new(&AdmissionLimits { connections: Some(connections), fair_share, ..NONE })
    }

    /// Returns a player in a network of its own.
    fn player(number: u32) -> AddressKey {
        AddressKey::v4(number << 8)
    }

    /// Returns the counts of all, of known players, and as read without the lock.
    fn counts(slots: &Slots) -> (usize, usize, usize) {
        let state = slots.state();
        let known = state.taken.values().flatten().count();
        (state.taken.len(), known, slots.taken())
    }

    #[test]
    fn without_fair_share_who_comes_last_is_refused() {
        let slots = slots(2, false);
        let _first = slots.take(1, Some(player(1))).unwrap();
        let second = slots.take(2, Some(player(1))).unwrap();
        assert_eq!(slots.take(3, Some(player(2))).err(), Some(LimitExceeded::Total));
        assert_eq!(slots.take(3, None).err(), Some(LimitExceeded::Total));
        drop(second);
        let _third = slots.take(3, Some(player(2))).unwrap();
        assert_eq!((counts(&slots), slots.state().shares.of(player(2))), ((2, 2, 2), 1), "the refused do not count");
    }

    #[test]
    fn who_has_the_most_gives_way_and_his_place_is_given_once() {
        let slots = slots(3, true);
        let crowd: Vec<_> = (1..=3).map(|connection| slots.take(connection, Some(player(1))).unwrap()).collect();
        let second = slots.take(4, Some(player(2))).unwrap();
        assert_eq!(second.evicted, Some(3));
        assert_eq!(slots.take(5, Some(player(1))).err(), Some(LimitExceeded::Total), "nobody has more");
        let third = slots.take(6, Some(player(3))).unwrap();
        assert_eq!((third.evicted, counts(&slots)), (Some(2), (3, 3, 3)));
        drop(crowd);
        assert_eq!(counts(&slots), (2, 2, 2), "of the first only one place was left to free");
    }

    #[test]
    fn a_connection_of_nobody_yet_counts_for_its_player_once_that_is_known() {
        let slots = Slots::new(&AdmissionLimits { connections: Some(3), connections_per_address: Some(1), ..NONE });
        let _holder = slots.take(1, Some(player(1))).unwrap();
        let unknown = slots.take(2, None).unwrap().slot;
        assert_eq!(unknown.claim(player(1)), Err(LimitExceeded::Address));
        assert_eq!(unknown.claim(player(2)), Ok(None));
        assert_eq!(unknown.claim(player(2)), Ok(None), "it does not count twice");
        assert_eq!(slots.check_address(player(2)), Err(LimitExceeded::Address));
        let _third = slots.take(3, None).unwrap();
        drop(unknown);
        assert_eq!(counts(&slots), (2, 1, 2));
    }

    #[test]
    fn nobody_is_evicted_before_it_is_known_for_whom() {
        let slots = slots(2, true);
        let _crowd = [slots.take(1, Some(player(1))).unwrap(), slots.take(2, Some(player(1))).unwrap()];
        let unknown: Vec<_> = (3..).take(HEADERLESS).map(|connection| slots.take(connection, None).unwrap()).collect();
        assert!(unknown.iter().all(|taken| taken.evicted.is_none()));
        // Of these, the one that waits the longest.
        let late = slots.take(1000, None).unwrap();
        assert_eq!((late.evicted, counts(&slots)), (Some(3), (2 + HEADERLESS, 2, 2 + HEADERLESS)));
        assert_eq!(late.slot.claim(player(1)), Err(LimitExceeded::Total), "nobody has more");
        assert_eq!(late.slot.claim(player(2)), Ok(Some(2)));
        assert_eq!(unknown[1].slot.claim(player(3)), Err(LimitExceeded::Total), "each network has one");
        drop((unknown, late));
        assert_eq!(counts(&slots), (1, 1, 1));
    }

    #[test]
    fn who_is_known_from_the_start_finds_room_where_others_only_wait() {
        let slots = slots(2, true);
        let unknown: Vec<_> = (1..=2).map(|connection| slots.take(connection, None).unwrap()).collect();
        let known = [3, 4].map(|connection| slots.take(connection, Some(player(1))).unwrap());
        assert!(known.iter().all(|taken| taken.evicted.is_none()));
        assert_eq!(unknown[0].slot.claim(player(2)), Ok(Some(4)));
        assert_eq!(unknown[1].slot.claim(player(1)), Err(LimitExceeded::Total));
    }

    #[test]
    fn who_has_lost_his_place_claims_nothing() {
        let slots = slots(2, true);
        let _first = slots.take(1, Some(player(1))).unwrap();
        let unknown = slots.take(2, None).unwrap().slot;
        slots.free(2);
        assert_eq!(unknown.claim(player(1)), Ok(None));
        assert_eq!((counts(&slots), slots.state().shares.of(player(1))), ((1, 1, 1), 1));
    }

    #[test]
    fn other_limits_count_what_was_there_before() {
        let slots = Slots::new(&NONE);
        let taken: Vec<_> = (1..=3).map(|connection| slots.take(connection, Some(player(1))).unwrap()).collect();
        slots.set(&AdmissionLimits { connections_per_address: Some(3), ..NONE });
        assert_eq!(slots.take(4, Some(player(1))).err(), Some(LimitExceeded::Address));
        slots.set(&AdmissionLimits { connections: Some(2), ..NONE });
        assert_eq!(slots.take(5, Some(player(2))).unwrap().evicted, Some(3));
        slots.set(&AdmissionLimits { connections: Some(2), fair_share: false, ..NONE });
        assert_eq!(slots.take(6, Some(player(3))).err(), Some(LimitExceeded::Total));
        drop(taken);
        assert_eq!(counts(&slots), (0, 0, 0), "the newcomer was dropped at once");
    }

    #[test]
    fn the_share_that_is_taken_is_shown_and_presses_on_strangers() {
        let (slots, shown) = (slots(4, true), Gauge::new("share", "share").unwrap());
        slots.set_gauge(shown.clone());
        let mut taken: Vec<_> = (1..=3).map(|n| slots.take(n.into(), Some(player(n))).unwrap()).collect();
        assert_eq!((shown.get(), slots.time_left_factor()), (0.75, 1.0));
        taken.push(slots.take(4, Some(player(4))).unwrap());
        assert!(shown.get() == 1.0 && slots.time_left_factor() < 0.3);
        slots.set(&AdmissionLimits { connections: Some(4), pressure: false, ..NONE });
        assert_eq!(slots.time_left_factor(), 1.0);
        slots.set(&NONE);
        assert_eq!((shown.get(), slots.time_left_factor()), (0.0, 1.0));
        drop(taken);
    }

    #[test]
    fn threads_never_exceed_a_limit() {
        const MAX: usize = 20;
        const MAX_PER_ADDRESS: usize = 5;
        for fair_share in [false, true] {
            let limits =
                AdmissionLimits { connections: Some(MAX), connections_per_address: Some(MAX_PER_ADDRESS), ..NONE };
            let slots = Slots::new(&AdmissionLimits { fair_share, ..limits });
            let next = AtomicU64::new(1);
            std::thread::scope(|scope| {
                for thread in 0..8u32 {
                    let (slots, next) = (&slots, &next);
                    scope.spawn(move || {
                        let mut held = Vec::new();
                        for turn in 0..3000u32 {
                            let player = (turn % 5 > 0).then(|| player(turn.wrapping_mul(7).wrapping_add(thread) % 10));
                            held.extend(slots.take(next.fetch_add(1, Ordering::Relaxed), player));
                            let state = slots.state();
                            let beyond = if fair_share { HEADERLESS } else { 0 };
                            assert!(state.taken.len() <= MAX + beyond);
                            assert!(state.taken.len() - state.unknown.len() <= MAX);
                            assert!((0..10).all(|n| state.shares.of(self::player(n)) <= MAX_PER_ADDRESS));
                            drop(state);
                            if turn % 3 == 0 {
                                held.clear();
                            }
                        }
                    });
                }
            });
            assert_eq!(counts(&slots), (0, 0, 0));
        }
    }

    #[test]
    fn a_limit_that_comes_later_counts_who_was_there_before() {
        let slots = Slots::new(&NONE);
        let all: Vec<_> = (1..=3).map(|connection| slots.take(connection, Some(player(1))).unwrap()).collect();
        let unknown = slots.take(4, None).unwrap();
        assert_eq!(slots.state().shares.of(player(1)), 0, "nobody asks");
        slots.set(&AdmissionLimits { connections_per_address: Some(3), ..NONE });
        assert_eq!(slots.take(5, Some(player(1))).err(), Some(LimitExceeded::Address));
        assert_eq!(unknown.slot.claim(player(1)), Err(LimitExceeded::Address));
        drop(all);
        let _again = slots.take(6, Some(player(1))).unwrap();
        assert_eq!(slots.state().shares.of(player(1)), 1);
        slots.set(&AdmissionLimits { connections: Some(2), ..NONE });
        let _other = slots.take(7, Some(player(2))).unwrap();
        assert_eq!(
            slots.take(8, Some(player(3))).err(),
            Some(LimitExceeded::Total),
            "one of each, and nobody has more"
        );
        slots.set(&NONE);
        assert_eq!(slots.state().shares.of(player(1)), 0);
    }
}
