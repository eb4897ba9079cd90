//! The round trips that a client tells on one link, as far as time is their witness.

use std::time::{Duration, Instant};

/// The least time between two that count on one link. Clients ping each 2.5 s, and tell one with each ping.
pub const ROUND_TRIP_SPACING: Duration = Duration::from_secs(2);

/// The judge of one link's round trips. A ping tells the last one that the client has measured, and nothing but the client's
/// word stands for it: one counts at most in each [`ROUND_TRIP_SPACING`], and none that the times of the pings contradict.
#[derive(Debug, Clone, Copy)]
pub struct RoundTrips {
    /// The times of the last ping and of the one before it.
    last: Instant,
    before: Instant,
    counted: Option<Instant>,
}

impl RoundTrips {
    /// Makes the judge of a link that began at this time.
    pub fn new(began: Instant) -> Self {
        Self { last: began, before: began, counted: None }
    }

    /// Takes a ping that came at `now` and tells a round trip; returns whether that counts.
    ///
    /// It was measured with an earlier ping. However late that arrived, it was sent after the one before it had come here,
    /// or at the most one interval earlier: so a longer one than the time since then is none.
    pub fn take(&mut self, told: Duration, now: Instant) -> bool {
        let possible = told <= now.saturating_duration_since(self.before);
        (self.before, self.last) = (self.last, now);
        let spaced = self.counted.is_none_or(|at| now.saturating_duration_since(at) >= ROUND_TRIP_SPACING);
        if possible && spaced {
            self.counted = Some(now);
        }
        possible && spaced
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn what_clients_tell_counts() {
        let start = Instant::now();
        let mut trips = RoundTrips::new(start);
        // At their rhythm, early and late, and across a path that stood still.
        let pings = [(2_500, 40), (4_990, 45), (7_600, 2_300), (10_100, 2_490), (14_000, 4_000)];
        for (at, told) in pings {
            assert!(trips.take(Duration::from_millis(told), start + Duration::from_millis(at)), "{told} at {at}");
        }
    }

    #[test]
    fn a_flood_counts_as_one_client_does() {
        let start = Instant::now();
        let mut trips = RoundTrips::new(start);
        let counted = (0..30_000u32).filter(|n| trips.take(SECOND / 1000, start + SECOND + SECOND / 1000 * *n)).count();
        // One at the beginning, and one in each two seconds of half a minute.
        assert_eq!(counted, 15);
    }

    #[test]
    fn what_time_contradicts_counts_never() {
        let start = Instant::now();
        let mut trips = RoundTrips::new(start);
        let told = 4950 * SECOND / 1000;
        // However old the link is, and whatever came between.
        for n in 0..60_000u32 {
            assert!(!trips.take(told, start + SECOND / 1000 * n), "after {n} ms");
        }
        assert!(!RoundTrips::new(start).take(told, start + 4 * SECOND), "longer than the link is there");
    }
}
