//! One queue in which each has a place in time.

use std::time::Instant;

use crate::quota::Quota;

/// Gives places in time, at a [`Quota`].
#[derive(Debug, Clone)]
pub struct Pacer {
    rate: Quota,
    earned: Option<Instant>,
}

impl Pacer {
    /// Makes an empty queue.
    pub fn new(rate: Quota) -> Self {
        Self { rate, earned: None }
    }

    /// Changes the rate. Places that were given stay.
    pub fn set(&mut self, rate: Quota) {
        self.rate = rate;
    }

    /// Returns the time of the next place: `now` if it is free.
    pub fn next(&self, now: Instant) -> Instant {
        self.rate.next(self.earned, now)
    }

    /// Takes the next place; returns its time. `None`, with nothing taken, if that is later than `until`.
    pub fn take(&mut self, now: Instant, until: Instant) -> Option<Instant> {
        self.rate.take(&mut self.earned, now, until)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_burst_then_one_for_each_interval_and_idle_time_earns_the_burst_again() {
        let interval = Duration::from_millis(10);
        let mut pace = Pacer::new(Quota::new(interval, 3));
        let start = Instant::now();
        for at in [start, start + Duration::from_secs(5)] {
            let until = at + interval * 2;
            let places: Vec<_> = (0..7).map(|_| pace.take(at, until)).collect();
            let later = [interval, interval * 2].map(|wait| Some(at + wait));
            assert_eq!(places, [&[Some(at); 3][..], &later, &[None; 2]].concat());
        }
    }
}
