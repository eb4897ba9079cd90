//! A limit of things at once, in all and for each address.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use thiserror::Error;

use super::by_address::{AddressKey, ByAddress};

/// The limit that would be exceeded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum LimitExceeded {
    /// The limit in all.
    #[error("too many connections")]
    Total,
    /// The limit for one address.
    #[error("too many connections from this address")]
    Address,
}

/// A limit of sessions or handshakes, over all workers.
#[derive(Debug)]
pub struct KeyedLimit {
    max: AtomicUsize,
    max_per_address: AtomicUsize,
    total: AtomicUsize,
    by_address: ByAddress<HashMap<AddressKey, usize>>,
}

impl KeyedLimit {
    /// Makes a limit; `None` is no limit.
    pub fn new(max: Option<usize>, max_per_address: Option<usize>) -> Arc<Self> {
        Arc::new(Self {
            max: AtomicUsize::new(max.unwrap_or(usize::MAX)),
            max_per_address: AtomicUsize::new(max_per_address.unwrap_or(usize::MAX)),
            total: AtomicUsize::new(0),
            by_address: ByAddress::default(),
        })
    }

    /// Changes the limits. Counts stay, and while they exceed a new limit nothing new is admitted.
    pub fn set(&self, max: Option<usize>, max_per_address: Option<usize>) {
        self.max.store(max.unwrap_or(usize::MAX), Ordering::Relaxed);
        self.max_per_address.store(max_per_address.unwrap_or(usize::MAX), Ordering::Relaxed);
    }

    /// Counts one for `address` until the guard is dropped.
    ///
    /// # Errors
    /// Returns the limit that is reached; then nothing is counted.
    pub fn try_acquire(self: &Arc<Self>, address: AddressKey) -> Result<KeyedGuard, LimitExceeded> {
        let max = self.max.load(Ordering::Relaxed);
        // Nothing else is published by this count, and the update itself is atomic: Relaxed does.
        self.total
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |total| (total < max).then_some(total + 1))
            .map_err(|_| LimitExceeded::Total)?;
        self.claim(address).inspect_err(|_| {
            self.total.fetch_sub(1, Ordering::Relaxed);
        })?;
        Ok(KeyedGuard { limit: Arc::clone(self), address })
    }

    /// Returns the present number.
    pub fn total(&self) -> usize {
        self.total.load(Ordering::Relaxed)
    }

    /// Counts even without a limit: one may be set later, and then everything open counts.
    fn claim(&self, address: AddressKey) -> Result<(), LimitExceeded> {
        let max = self.max_per_address.load(Ordering::Relaxed);
        let mut table = self.by_address.shard(address);
        let count = table.get(&address).copied().unwrap_or(0);
        if count >= max {
            return Err(LimitExceeded::Address);
        }
        table.insert(address, count + 1);
        Ok(())
    }

    fn unclaim(&self, address: AddressKey) {
        // An address without connections leaves no entry, so the table is no larger than its contents.
        if let Entry::Occupied(mut entry) = self.by_address.shard(address).entry(address) {
            if *entry.get() > 1 {
                *entry.get_mut() -= 1;
            } else {
                entry.remove();
            }
        }
    }
}

/// The guard of one counted thing. Dropping it counts it off.
#[derive(Debug)]
pub struct KeyedGuard {
    limit: Arc<KeyedLimit>,
    address: AddressKey,
}

impl Drop for KeyedGuard {
    fn drop(&mut self) {
        self.limit.unclaim(self.address);
        self.limit.total.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;

    fn key(address: &str) -> AddressKey {
        address.parse::<IpAddr>().unwrap().into()
    }

    fn entries(limit: &KeyedLimit) -> usize {
        limit.by_address.sum(HashMap::len)
    }

    #[test]
    fn the_limit_in_all() {
        let limit = KeyedLimit::new(Some(2), None);
        let first = limit.try_acquire(key("192.0.2.1")).unwrap();
        let _second = limit.try_acquire(key("192.0.2.2")).unwrap();
        assert_eq!(limit.try_acquire(key("192.0.2.3")).err(), Some(LimitExceeded::Total));
        drop(first);
        assert!(limit.try_acquire(key("192.0.2.3")).is_ok());
        assert_eq!(limit.total(), 1, "the refused and the dropped do not count");
    }

    #[test]
    fn the_limit_for_each_address() {
        let limit = KeyedLimit::new(None, Some(2));
        let (one, other) = (key("2001:db8::1"), key("2001:db8:0:1::"));
        let guards = [limit.try_acquire(one).unwrap(), limit.try_acquire(key("2001:db8::2")).unwrap()];
        assert_eq!(limit.try_acquire(one).err(), Some(LimitExceeded::Address));
        assert_eq!(limit.total(), 2, "the refused one does not count in all either");
        let _other = limit.try_acquire(other).unwrap();
        drop(guards);
        assert_eq!(entries(&limit), 1, "no entry is left behind");
        assert!(limit.try_acquire(one).is_ok());
    }

    #[test]
    fn other_limits_count_what_was_there_before() {
        let limit = KeyedLimit::new(None, None);
        let (one, other) = (key("192.0.2.1"), key("192.0.2.2"));
        let mut guards: Vec<_> = (0..3).map(|_| limit.try_acquire(one).unwrap()).collect();
        limit.set(Some(2), None);
        assert_eq!(limit.try_acquire(other).err(), Some(LimitExceeded::Total));
        guards.pop();
        assert_eq!(limit.try_acquire(other).err(), Some(LimitExceeded::Total), "as many as may be are there");
        limit.set(None, Some(2));
        assert_eq!(limit.try_acquire(one).err(), Some(LimitExceeded::Address));
        assert!(limit.try_acquire(other).is_ok());
        limit.set(None, Some(3));
        assert!(limit.try_acquire(one).is_ok());
        drop(guards);
        assert_eq!((limit.total(), entries(&limit)), (0, 0));
    }

    #[test]
    fn threads_never_exceed_a_limit() {
        const MAX: usize = 20;
        const MAX_PER_ADDRESS: usize = 3;
        let limit = KeyedLimit::new(Some(MAX), Some(MAX_PER_ADDRESS));
        let held: Vec<AtomicUsize> = (0..10).map(|_| AtomicUsize::new(0)).collect();
        std::thread::scope(|scope| {
            for thread in 0..8u32 {
                let (limit, held) = (&limit, &held);
                // Counted off `held` before the limit: `held` is never ahead of it.
                let release = move |guards: &mut Vec<(KeyedGuard, u32)>| {
                    for (guard, index) in guards.drain(..) {
                        held[index as usize].fetch_sub(1, Ordering::SeqCst);
                        drop(guard);
                    }
                };
                scope.spawn(move || {
                    let mut guards = Vec::new();
                    for turn in 0..5000u32 {
                        let index = (turn.wrapping_mul(7) + thread) % 10;
                        if let Ok(guard) = limit.try_acquire(AddressKey::v4(index)) {
                            let now = held[index as usize].fetch_add(1, Ordering::SeqCst) + 1;
                            assert!(now <= MAX_PER_ADDRESS, "{now} at once");
                            guards.push((guard, index));
                        }
                        assert!(limit.total() <= MAX);
                        if turn % 3 == 0 {
                            release(&mut guards);
                        }
                    }
                    release(&mut guards);
                });
            }
        });
        assert_eq!((limit.total(), entries(&limit)), (0, 0));
    }
}
