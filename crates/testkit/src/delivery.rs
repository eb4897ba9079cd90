//! The check of a numbered stream: what was delivered, lost, duplicated, reordered.

use std::collections::BTreeMap;

/// Holes that a check remembers at once. A stream with more is in ruins anyway: see
/// [`Delivery::exact`].
pub const MAX_HOLES: usize = 4096;

/// The result of a check of a stream.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Delivery {
    /// Numbers that arrived, each counted once.
    pub delivered: u64,
    /// Numbers that never arrived.
    pub lost: u64,
    /// Arrivals of a number that had arrived before.
    pub duplicated: u64,
    /// Numbers whose first arrival came after that of a higher one.
    pub reordered: u64,
    /// Arrivals of a number that was never sent: 0, or above the last one.
    pub alien: u64,
    /// True if the counts are exact. They are not once more than [`MAX_HOLES`] holes were open at once: then the oldest
    /// were taken for lost, and a late arrival in them for a duplicate.
    pub exact: bool,
}

impl Delivery {
    /// Returns whether everything arrived, once and in order.
    pub fn perfect(&self) -> bool {
        let Self { delivered: _, lost, duplicated, reordered, alien, exact } = *self;
        exact && (lost, duplicated, reordered, alien) == (0, 0, 0, 0)
    }
}

/// Watches a stream of numbers that starts at 1. Its memory is that of the holes in it.
#[derive(Debug, Clone, Default)]
pub struct DeliveryCheck {
    highest: u64,
    /// The missing numbers below `highest`: first to last.
    holes: BTreeMap<u64, u64>,
    delivered: u64,
    duplicated: u64,
    reordered: u64,
    zeros: u64,
    /// Numbers in holes that were given up.
    given_up: u64,
}

impl DeliveryCheck {
    /// Makes a check that has seen nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Records that a number arrived.
    pub fn see(&mut self, number: u64) {
        if number == 0 {
            self.zeros += 1;
        } else if number > self.highest {
            if number - self.highest > 1 {
                self.holes.insert(self.highest + 1, number - 1);
                self.forget();
            }
            self.highest = number;
            self.delivered += 1;
        } else if self.fill(number) {
            self.delivered += 1;
            self.reordered += 1;
        } else {
            self.duplicated += 1;
        }
    }

    /// Takes a number out of the hole that it is in, where it is in one.
    fn fill(&mut self, number: u64) -> bool {
        let Some((&first, &last)) = self.holes.range(..=number).next_back() else { return false };
        if number > last {
            return false;
        }
        self.holes.remove(&first);
        if first < number {
            self.holes.insert(first, number - 1);
        }
        if number < last {
            self.holes.insert(number + 1, last);
        }
        self.forget();
        true
    }

    fn forget(&mut self) {
        while self.holes.len() > MAX_HOLES {
            if let Some((first, last)) = self.holes.pop_first() {
                self.given_up += last - first + 1;
            }
        }
    }

    /// Returns the highest number that has arrived.
    pub fn highest(&self) -> u64 {
        self.highest
    }

    /// Returns the result so far: missing numbers below the highest count as lost.
    pub fn so_far(&self) -> Delivery {
        self.verdict(self.highest)
    }

    /// Returns the result for a stream of which `sent` numbers were sent.
    pub fn verdict(&self, sent: u64) -> Delivery {
        let holes = self.holes.iter().filter(|(first, _)| **first <= sent);
        let missing: u64 = holes.map(|(first, last)| last.min(&sent) - first + 1).sum();
        // Above `sent` all that arrived is alien; what did not is not missing.
        let alien_holes: u64 = self
            .holes
            .values()
            .zip(self.holes.keys())
            .map(|(last, first)| last.saturating_sub(sent.max(first - 1)))
            .sum();
        let alien = self.highest.saturating_sub(sent).saturating_sub(alien_holes);
        Delivery {
            delivered: self.delivered.saturating_sub(alien),
            lost: missing + self.given_up + sent.saturating_sub(self.highest),
            duplicated: self.duplicated,
            reordered: self.reordered,
            alien: alien + self.zeros,
            exact: self.given_up == 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashSet;

    fn check(numbers: impl IntoIterator<Item = u64>) -> DeliveryCheck {
        let mut check = DeliveryCheck::new();
        numbers.into_iter().for_each(|number| check.see(number));
        check
    }

    const PERFECT: Delivery = Delivery { delivered: 0, lost: 0, duplicated: 0, reordered: 0, alien: 0, exact: true };

    #[test]
    fn all_in_order_is_perfect() {
        let check = check(1..=1000);
        assert_eq!(check.verdict(1000), Delivery { delivered: 1000, ..PERFECT });
        assert!(check.so_far().perfect() && check.verdict(1000).perfect());
        assert_eq!(check.verdict(1003), Delivery { delivered: 1000, lost: 3, ..PERFECT });
        assert!(!check.verdict(1003).perfect());
    }

    #[test]
    fn nothing_sent_and_nothing_seen_is_perfect() {
        assert!(DeliveryCheck::new().verdict(0).perfect());
        assert_eq!(DeliveryCheck::new().verdict(2).lost, 2);
    }

    #[test]
    fn each_fault_is_counted_as_what_it_is() {
        assert_eq!(check([1, 3]).verdict(3), Delivery { delivered: 2, lost: 1, ..PERFECT });
        assert_eq!(check([1, 1, 2]).verdict(2), Delivery { delivered: 2, duplicated: 1, ..PERFECT });
        assert_eq!(check([2, 1]).verdict(2), Delivery { delivered: 2, reordered: 1, ..PERFECT });
        assert_eq!(
            check([5, 3, 3, 1]).verdict(6),
            Delivery { delivered: 3, lost: 3, duplicated: 1, reordered: 2, ..PERFECT }
        );
        assert_eq!(check([0, 1, 9]).verdict(2), Delivery { delivered: 1, lost: 1, alien: 2, ..PERFECT });
    }

    #[test]
    fn memory_is_bounded_and_says_so() {
        let holes = MAX_HOLES as u64 + 10;
        let check = check((1..=holes).map(|number| number * 2));
        assert_eq!(check.holes.len(), MAX_HOLES);
        let report = check.verdict(holes * 2);
        assert_eq!((report.lost, report.delivered, report.exact), (holes, holes, false));
        assert!(!report.perfect());
    }

    proptest! {
        #[test]
        fn agrees_with_a_set(numbers in proptest::collection::vec(0u64..60, 0..120), sent in 0u64..70) {
            let (mut seen, mut highest) = (HashSet::new(), 0);
            let mut expected = PERFECT;
            for &number in &numbers {
                if number == 0 {
                    expected.alien += 1;
                } else if seen.insert(number) {
                    expected.reordered += u64::from(number < highest);
                    if number <= sent { expected.delivered += 1 } else { expected.alien += 1 }
                } else {
                    expected.duplicated += 1;
                }
                highest = highest.max(number);
            }
            expected.lost = (1..=sent).filter(|number| !seen.contains(number)).count() as u64;
            prop_assert_eq!(check(numbers).verdict(sent), expected);
        }
    }
}
