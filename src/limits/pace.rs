//! An even pace, after a burst.

use std::time::{Duration, Instant};

/// Gives places in time: so many at once, then one for each interval. Time in which none was taken
/// earns no more than the burst.
#[derive(Debug, Clone)]
pub struct Pace {
    interval: Duration,
    burst: Duration,
    next: Option<Instant>,
}

impl Pace {
    /// At most `burst` places at once, and at least one.
    pub fn new(interval: Duration, burst: u32) -> Self {
        Self { interval, burst: interval * burst.saturating_sub(1), next: None }
    }

    /// When the next place is; not after `now` where it is free.
    pub fn next(&self, now: Instant) -> Instant {
        let earliest = now.checked_sub(self.burst).unwrap_or(now);
        self.next.map_or(earliest, |next| next.max(earliest))
    }

    /// Takes the next place; gives when it is.
    pub fn take(&mut self, now: Instant) -> Instant {
        let place = self.next(now);
        self.next = Some(place + self.interval);
        place
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_then_one_for_each_interval_and_idle_time_earns_the_burst_again() {
        let interval = Duration::from_millis(10);
        let mut pace = Pace::new(interval, 3);
        let start = Instant::now() + Duration::from_secs(60);
        for at in [start, start + Duration::from_secs(5)] {
            for _ in 0..3 {
                assert!(pace.take(at) <= at);
            }
            assert_eq!(pace.take(at), at + interval);
            assert_eq!(pace.take(at), at + interval * 2);
        }
    }
}
