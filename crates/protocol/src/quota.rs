//! A quota: so many at once, and one more for each interval.

use std::time::{Duration, Instant};

/// The parameters of a rate limit, without a state: a [`Pacer`](crate::pacer::Pacer) has one, a limit for each address
/// many.
///
/// A state is a single instant: when all that was taken will have been earned back. In any stretch
/// of time at most `burst` places are given, and one more for each whole interval in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quota {
    interval: Duration,
    /// The time by which places may be taken ahead: an interval for each place of the burst but one.
    slack: Duration,
}

impl Quota {
    /// Makes a rate of one place for each `interval`, of which `burst` (at least one) may be saved up.
    pub fn new(interval: Duration, burst: u32) -> Self {
        // Of no length, it would be no rate.
        let interval = interval.max(Duration::from_nanos(1));
        Self { interval, slack: interval * burst.saturating_sub(1) }
    }

    /// Makes a rate of `count` (at least one) in each `period`, also all at once.
    pub fn per(count: u32, period: Duration) -> Self {
        Self::new(period / count.max(1), count)
    }

    /// Returns the time between two places, once a burst is used up.
    pub fn interval(&self) -> Duration {
        self.interval
    }

    /// Returns the slower one of two: the one with fewer places in the long run, and then the one with fewer at once.
    #[must_use]
    pub fn slower(self, other: Self) -> Self {
        let pace = |quota: Self| (quota.interval, std::cmp::Reverse(quota.slack));
        if pace(other) > pace(self) { other } else { self }
    }

    /// Returns when the next place is: `now` where it is free.
    pub fn next(&self, earned: Option<Instant>, now: Instant) -> Instant {
        earned.and_then(|earned| earned.checked_sub(self.slack)).map_or(now, |next| next.max(now))
    }

    /// Takes the next place; returns when it is. Nothing is taken where that is later than `until`.
    pub fn take(&self, earned: &mut Option<Instant>, now: Instant, until: Instant) -> Option<Instant> {
        let place = self.next(*earned, now);
        if place > until {
            return None;
        }
        *earned = Some(earned.map_or(now, |earned| earned.max(now)) + self.interval);
        Some(place)
    }

    /// Gives the last place back, as if it had not been taken.
    pub fn give_back(&self, earned: &mut Option<Instant>) {
        *earned = earned.and_then(|earned| earned.checked_sub(self.interval));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_count_in_a_period() {
        let (rate, start) = (Quota::per(60, Duration::from_secs(10)), Instant::now());
        let mut earned = None;
        let admitted = |earned: &mut _, at| (0..100).filter(|_| rate.take(earned, at, at).is_some()).count();
        assert_eq!(admitted(&mut earned, start), 60);
        assert_eq!(admitted(&mut earned, start + Duration::from_millis(166)), 0);
        assert_eq!(admitted(&mut earned, start + Duration::from_millis(1667)), 10);
        assert_eq!(admitted(&mut earned, start + Duration::from_secs(3600)), 60, "rest earns no more than the burst");
    }

    #[test]
    fn the_slower_of_two() {
        let of = |count, seconds| Quota::per(count, Duration::from_secs(seconds));
        assert_eq!(of(5, 1).slower(of(1, 1)), of(1, 1));
        assert_eq!(of(1, 1).slower(of(5, 5)), of(1, 1), "fewer at once");
        assert_eq!(of(5, 5).slower(of(1, 1)), of(1, 1));
    }

    #[test]
    fn a_place_that_is_given_back_is_there_again_and_no_more_than_that() {
        let (rate, now) = (Quota::per(2, Duration::from_secs(10)), Instant::now());
        let mut earned = None;
        let take = |earned: &mut _| rate.take(earned, now, now).is_some();
        assert_eq!([take(&mut earned), take(&mut earned), take(&mut earned)], [true, true, false]);
        rate.give_back(&mut earned);
        assert_eq!([take(&mut earned), take(&mut earned)], [true, false]);
        let mut unused = None;
        rate.give_back(&mut unused);
        assert_eq!([take(&mut unused), take(&mut unused), take(&mut unused)], [true, true, false]);
    }

    proptest! {
        #[test]
        fn never_more_than_the_burst_and_what_time_has_earned(
            burst in 1u32..10,
            interval in 1u64..1000,
            steps in prop::collection::vec((0u64..2000, 0u64..3000), 1..200),
        ) {
            let interval = Duration::from_millis(interval);
            let rate = Quota::new(interval, burst);
            let (mut now, mut earned, mut places) = (Instant::now(), None, Vec::new());
            for (step, patience) in steps {
                now += Duration::from_millis(step);
                let until = now + Duration::from_millis(patience);
                let next = rate.next(earned, now);
                match rate.take(&mut earned, now, until) {
                    Some(place) => {
                        prop_assert!(place == next && now <= place && place <= until);
                        places.push(place);
                    }
                    None => {
                        prop_assert!(next > until);
                        prop_assert_eq!(rate.next(earned, now), next, "a refusal takes nothing");
                    }
                }
            }
            prop_assert!(places.is_sorted());
            for (i, first) in places.iter().enumerate() {
                for (n, place) in (1..).zip(&places[i..]) {
                    let earned = (*place - *first).as_nanos() / interval.as_nanos();
                    prop_assert!(n <= u128::from(burst) + earned, "{} places in {:?}", n, *place - *first);
                }
            }
        }
    }
}
