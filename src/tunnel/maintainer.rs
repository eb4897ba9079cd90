//! Keeping a number of connections, and making new ones no faster than the other side can be expected to accept them.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::sleep;

use otproxy_net::Backoff;

/// The wait after the first failure; it doubles with each further one.
pub const FIRST_WAIT: Duration = Duration::from_millis(100);
/// The longest wait, in about which a core that is back is found.
pub const LONGEST_WAIT: Duration = Duration::from_secs(2);
const BACKOFF: Backoff = Backoff::new(FIRST_WAIT, LONGEST_WAIT);
/// Connections that are made at once: more would only queue for the processor of the other side.
pub const AT_ONCE: usize = 64;

/// The maintainer of a number of connections.
#[derive(Debug, Default)]
pub(super) struct TrunkMaintainer {
    /// Connections that are kept or being made.
    slots: Cell<usize>,
    /// Connections that are being made.
    making: Cell<usize>,
    /// Failures since the last success.
    failures: Cell<u32>,
    changed: Arc<Notify>,
}

/// The place of one connection.
#[derive(Debug)]
pub(super) struct TrunkSlot {
    keeper: Rc<TrunkMaintainer>,
    /// True if it was made after a failure, to test whether it would fail again.
    probe: bool,
    kept: bool,
    left: bool,
}

impl TrunkMaintainer {
    /// Makes one that looks again whenever `changed` is notified.
    pub fn new(changed: Arc<Notify>) -> Rc<Self> {
        Rc::new(Self { changed, ..Self::default() })
    }

    /// Calls `make` as long as there are fewer connections than `wanted` says, forever.
    pub async fn run(self: Rc<Self>, wanted: impl Fn() -> usize, make: impl Fn(TrunkSlot)) {
        loop {
            let missing = wanted().saturating_sub(self.slots.get());
            let failures = self.failures.get();
            if failures > 0 && missing > 0 && self.making.get() == 0 {
                // One connection tests for all.
                sleep(BACKOFF.wait_with_jitter(failures)).await;
                make(self.slot());
            } else if failures == 0 {
                let slots = missing.min(AT_ONCE.saturating_sub(self.making.get()));
                let slots: Vec<_> = (0..slots).map(|_| self.slot()).collect();
                slots.into_iter().for_each(&make);
            }
            self.changed.notified().await;
        }
    }

    fn slot(self: &Rc<Self>) -> TrunkSlot {
        self.slots.set(self.slots.get() + 1);
        self.making.set(self.making.get() + 1);
        TrunkSlot { keeper: Rc::clone(self), probe: self.failures.get() > 0, kept: false, left: false }
    }
}

impl TrunkSlot {
    /// Records that the connection is made, and that the other side has answered on it.
    pub fn keep(&mut self) {
        if !self.kept {
            self.kept = true;
            self.keeper.making.set(self.keeper.making.get() - 1);
            self.keeper.failures.set(0);
            self.keeper.changed.notify_one();
        }
    }

    /// Frees the place, as another connection is to take it: it has not failed.
    pub fn leave(mut self) {
        self.keep();
        self.left = true;
    }
}

impl Drop for TrunkSlot {
    fn drop(&mut self) {
        let keeper = &self.keeper;
        keeper.slots.set(keeper.slots.get() - 1);
        if !self.kept {
            keeper.making.set(keeper.making.get() - 1);
        }
        if !self.left {
            // Several that fail together, as when the other side restarts, are one failure.
            let more = u32::from(self.probe && !self.kept);
            keeper.failures.set(keeper.failures.get().saturating_add(more).max(1));
        }
        keeper.changed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use tokio::time::Instant;

    use super::*;

    /// Runs a maintainer that wants `wanted`, on a clock that jumps; returns the time of each place.
    fn kept(wanted: usize, on_place: impl Fn(usize, TrunkSlot) -> Option<TrunkSlot>, until: Duration) -> Vec<Duration> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let keeper = TrunkMaintainer::new(Arc::default());
            let (made, slots, began) = (RefCell::new(Vec::new()), RefCell::new(Vec::new()), Instant::now());
            let make = |slot| {
                made.borrow_mut().push(began.elapsed());
                let number = made.borrow().len();
                slots.borrow_mut().extend(on_place(number, slot));
            };
            let _ = tokio::time::timeout(until, keeper.run(|| wanted, make)).await;
            made.take()
        })
    }

    #[test]
    fn it_makes_what_is_wanted_and_no_more() {
        let keep = |_, mut slot: TrunkSlot| {
            slot.keep();
            Some(slot)
        };
        assert_eq!(kept(8, keep, Duration::from_secs(60)).len(), 8);
    }

    #[test]
    fn it_makes_only_so_many_at_once() {
        assert_eq!(kept(AT_ONCE + 10, |_, slot| Some(slot), Duration::from_secs(60)).len(), AT_ONCE);
    }

    #[test]
    fn a_place_that_is_left_is_filled_at_once() {
        let leave = |number, mut slot: TrunkSlot| {
            if number <= 5 {
                slot.leave();
                return None;
            }
            slot.keep();
            Some(slot)
        };
        let made = kept(3, leave, Duration::from_secs(60));
        assert_eq!(made.len(), 8);
        assert!(made.iter().all(Duration::is_zero), "{made:?}");
    }

    #[test]
    fn failures_slow_it_down_and_a_success_ends_that() {
        let fail = |number, mut slot: TrunkSlot| {
            if number <= 11 {
                return None;
            }
            slot.keep();
            Some(slot)
        };
        let made = kept(4, fail, Duration::from_secs(60));
        // The first four fail together, then one at a time, then all are made.
        assert_eq!(made.len(), 11 + 4, "{made:?}");
        assert!(made[..4].iter().all(Duration::is_zero));
        for (n, pair) in made[3..12].windows(2).enumerate() {
            let (wait, longest) = (pair[1] - pair[0], BACKOFF.wait(n as u32 + 1));
            assert!(wait >= longest / 2 && wait <= longest + Duration::from_millis(1), "{n}: {wait:?}");
        }
        assert!(made[12..].iter().all(|at| *at == made[11]), "{made:?}");
    }

    #[test]
    fn one_that_dies_is_not_made_anew_at_once() {
        let die = |number, mut slot: TrunkSlot| {
            slot.keep();
            (number > 3).then_some(slot)
        };
        let made = kept(1, die, Duration::from_secs(60));
        assert_eq!(made.len(), 4);
        assert!(made[1] >= FIRST_WAIT / 2, "{made:?}");
    }
}
