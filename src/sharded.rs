//! Tables in shards, each behind a lock of its own, so that workers seldom meet at one.

use parking_lot::{Mutex, MutexGuard};

/// Parts of a table.
pub(crate) const SHARDS: usize = 16;

/// A table that all workers share: a `T` for each part of its keys.
#[derive(Debug, Default)]
pub(crate) struct Sharded<T>([Mutex<T>; SHARDS]);

impl<T> Sharded<T> {
    /// Locks the part that has a key, by a number that spreads keys evenly: a count or a hash.
    pub fn lock(&self, spread: u64) -> MutexGuard<'_, T> {
        #[expect(clippy::indexing_slicing, reason = "a remainder is less than what was divided by")]
        let shard = &self.0[(spread % SHARDS as u64) as usize];
        // Nothing that can panic changes a table under its lock, so each is consistent whatever happened.
        shard.lock()
    }

    /// Locks one part after the other.
    pub fn iter(&self) -> impl Iterator<Item = MutexGuard<'_, T>> {
        self.0.iter().map(Mutex::lock)
    }
}
