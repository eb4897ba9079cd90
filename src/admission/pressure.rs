//! Pressure: how near the limit of connections is, and how much time unauthenticated peers get for it.

use std::time::Duration;

/// The share of `limits.connections` from which on unauthenticated peers get less time.
pub const PRESSURE_FROM: f64 = 0.75;
/// The share of their time that they get at the limit.
pub const PRESSURE_LEAST: f64 = 0.2;
/// The least idle time. A player or a link is heard from at least this often, with time for losses on the way: clients
/// ping every 2.5 s, and give up a link that does not answer for 7.5 s.
pub const PRESSURE_IDLE: Duration = Duration::from_secs(10);

/// The share below which pressure counts as over, so that it is not told with each connection that comes and goes.
pub const PRESSURE_OVER: f64 = 0.65;

/// The watch over one share of connections.
#[derive(Debug, Default)]
pub struct PressureWatch {
    ongoing: bool,
}

impl PressureWatch {
    /// Takes the present share. Returns what is new: true if there is pressure from now on, false if it is over.
    pub fn look(&mut self, share: f64) -> Option<bool> {
        let ongoing = if self.ongoing { share >= PRESSURE_OVER } else { share >= PRESSURE_FROM };
        (std::mem::replace(&mut self.ongoing, ongoing) != ongoing).then_some(ongoing)
    }
}

/// Returns the share of a time limit, 0.2 to 1, for this share of all connections.
pub(super) fn part(share: f64) -> f64 {
    let pressure = ((share - PRESSURE_FROM) / (1.0 - PRESSURE_FROM)).clamp(0.0, 1.0);
    1.0 - pressure * (1.0 - PRESSURE_LEAST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_told_when_it_begins_and_when_it_is_over() {
        let mut watch = PressureWatch::default();
        let told = [0.7, 0.75, 0.74, 0.9, 0.65, 0.64, 0.74].map(|share| watch.look(share));
        assert_eq!(told, [None, Some(true), None, None, None, Some(false), None]);
    }

    #[test]
    fn time_shrinks_evenly_over_the_last_quarter() {
        for (share, expected) in [(0.0, 1.0), (0.75, 1.0), (0.875, 0.6), (1.0, 0.2), (1.5, 0.2)] {
            assert!((part(share) - expected).abs() < 1e-9, "{share}: {}", part(share));
        }
    }
}
