//! A rate limit for each player address.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use super::by_address::{AddressKey, ByAddress};
use crate::sharded::SHARDS;
use otproxy_protocol::quota::Quota;

/// Addresses in one generation of a shard: what a table of 2048 slots takes before it grows.
const GENERATION: usize = 1792;
/// Addresses that a [`RateLimit`] remembers at most, in about 3 MiB.
pub const ADDRESSES: usize = 2 * GENERATION * SHARDS;

/// A [`Quota`] for each player address, over all workers.
///
/// Its memory is bounded however many addresses come: beyond [`ADDRESSES`] it forgets the addresses that have asked for
/// nothing for the longest time, and a forgotten address has a whole burst again. To gain by that, an attacker needs
/// more addresses than half the table, all of them asking, and with so many the rates of all together already exceed
/// the purpose of any limit by address: a limit in all holds then. No address is ever refused because of others.
#[derive(Debug)]
pub struct RateLimit {
    rate: Quota,
    table: Arc<ByAddress<Generations>>,
}

impl RateLimit {
    /// Makes a limit without state.
    pub fn new(rate: Quota) -> Self {
        Self { rate, table: Arc::default() }
    }

    /// Returns the same with another rate: what was used up is earned back at the same time as before.
    #[must_use]
    pub fn with_rate(&self, rate: Quota) -> Self {
        Self { rate, table: Arc::clone(&self.table) }
    }

    /// Returns whether `address` may do it once more `now`; counts it then.
    #[must_use]
    pub fn try_take(&self, address: AddressKey, now: Instant) -> bool {
        let mut shard = self.table.shard(address);
        self.rate.take(shard.of(address), now, now).is_some()
    }

    /// Forgets `address`, which has a whole burst again.
    pub fn forget(&self, address: AddressKey) {
        *self.table.shard(address).of(address) = None;
    }
}

/// States by address: those used lately, and those used before them, as far back as there is room.
#[derive(Debug, Default)]
struct Generations {
    current: HashMap<AddressKey, Option<Instant>>,
    previous: HashMap<AddressKey, Option<Instant>>,
}

impl Generations {
    /// Returns the state of `address`, which is now the last to be forgotten.
    fn of(&mut self, address: AddressKey) -> &mut Option<Instant> {
        if !self.current.contains_key(&address) {
            let state = self.previous.get(&address).copied().flatten();
            if self.current.len() >= GENERATION {
                // One step for each generation of addresses, and no look at each old one.
                std::mem::swap(&mut self.current, &mut self.previous);
                self.current.clear();
            }
            self.current.insert(address, state);
        }
        self.current.entry(address).or_default()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn entries(limit: &RateLimit) -> usize {
        limit.table.sum(|shard| shard.current.len() + shard.previous.len())
    }

    #[test]
    fn each_address_has_a_rate_of_its_own() {
        let (limit, now) = (RateLimit::new(Quota::per(3, 30 * SECOND)), Instant::now());
        let admitted = |address, at| (0..10).filter(|_| limit.try_take(address, at)).count();
        assert_eq!(admitted(AddressKey::v4(1), now), 3);
        assert_eq!(admitted(AddressKey::v6(1), now), 3);
        assert_eq!(admitted(AddressKey::v4(1), now + 20 * SECOND), 2);
        limit.forget(AddressKey::v6(1));
        assert_eq!(admitted(AddressKey::v6(1), now), 3);
        assert_eq!(admitted(AddressKey::v4(1), now + 20 * SECOND), 0, "forgotten with another");
        assert_eq!(entries(&limit), 2);
    }

    #[test]
    fn another_rate_knows_what_was_done_before() {
        let (limit, now, address) = (RateLimit::new(Quota::per(1, 30 * SECOND)), Instant::now(), AddressKey::v4(1));
        assert!(limit.try_take(address, now));
        let faster = limit.with_rate(Quota::per(1, 10 * SECOND));
        assert!(!faster.try_take(address, now + 10 * SECOND), "what the slower one gave is earned at its rate");
        assert!(faster.try_take(address, now + 30 * SECOND));
        assert!(faster.try_take(address, now + 40 * SECOND));
        assert!(limit.with_rate(Quota::per(2, 30 * SECOND)).try_take(AddressKey::v4(2), now));
    }

    #[test]
    fn any_number_of_addresses_takes_no_more_memory_and_who_is_busy_is_not_forgotten() {
        let (limit, now) = (RateLimit::new(Quota::per(1, 3600 * SECOND)), Instant::now());
        let busy = AddressKey::v4(1);
        assert!(limit.try_take(busy, now));
        let mut most = 0;
        for n in 0..10 * ADDRESSES as u64 {
            assert!(limit.try_take(AddressKey::v6(n), now), "a new address is refused");
            if n % 1000 == 0 {
                assert!(!limit.try_take(busy, now), "forgotten after {n}");
                most = most.max(entries(&limit));
            }
        }
        assert!((ADDRESSES / 2..=ADDRESSES).contains(&most), "{most}");
        assert_eq!(size_of::<(AddressKey, Option<Instant>)>() * 2048 * 2 * SHARDS, 3 << 20);
        let slots = limit.table.sum(|shard| shard.current.capacity() + shard.previous.capacity());
        assert_eq!(slots, ADDRESSES, "no table has grown");
    }

    #[test]
    fn an_address_is_remembered_until_two_generations_of_others_have_come() {
        let mut shard = Generations::default();
        let (address, state) = (AddressKey::v4(0), Some(Instant::now()));
        let mut others = (1..).map(AddressKey::v4);
        *shard.of(address) = state;
        for turn in 0..3 {
            others.by_ref().take(2 * GENERATION - 1).for_each(|other| *shard.of(other) = None);
            assert_eq!(*shard.of(address), state, "turn {turn}");
        }
        others.by_ref().take(2 * GENERATION).for_each(|other| *shard.of(other) = None);
        assert_eq!(*shard.of(address), None);
    }

    #[test]
    fn threads_together_are_admitted_no_more() {
        let (limit, now) = (RateLimit::new(Quota::per(50, SECOND)), Instant::now());
        let admitted: usize = std::thread::scope(|scope| {
            let count = || (0..1000).filter(|n| limit.try_take(AddressKey::v4(n % 3), now)).count();
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(count)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!(admitted, 3 * 50);
    }

    proptest! {
        #[test]
        fn as_exact_as_a_state_for_each_address(
            steps in prop::collection::vec((0u32..5, 0u64..500), 1..300),
        ) {
            let rate = Quota::per(3, SECOND);
            let limit = RateLimit::new(rate);
            let (mut now, mut exact) = (Instant::now(), HashMap::new());
            for (address, step) in steps {
                now += Duration::from_millis(step);
                let may = rate.take(exact.entry(address).or_insert(None), now, now).is_some();
                prop_assert_eq!(limit.try_take(AddressKey::v4(address), now), may);
            }
        }
    }
}
