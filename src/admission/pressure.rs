//! How near a limit of connections is to be reached, and what that does to the time that strangers are given.

use std::time::Duration;

/// The share of `limits.connections` from which on strangers are given less time.
pub const PRESSURE_FROM: f64 = 0.75;
/// The part of their time that they are given where the limit is reached.
pub const PRESSURE_LEAST: f64 = 0.2;
/// Who plays, or has a link, is heard at least this often, with time for what is lost on the way: clients ping every
/// 2.5 s, and give a link up that does not answer for 7.5 s.
pub const PRESSURE_IDLE: Duration = Duration::from_secs(10);

/// The part of a time limit, 0.2 to 1, that holds where this share of all connections is taken.
pub(super) fn part(share: f64) -> f64 {
    let pressure = ((share - PRESSURE_FROM) / (1.0 - PRESSURE_FROM)).clamp(0.0, 1.0);
    1.0 - pressure * (1.0 - PRESSURE_LEAST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_shrinks_evenly_over_the_last_quarter() {
        for (share, expected) in [(0.0, 1.0), (0.75, 1.0), (0.875, 0.6), (1.0, 0.2), (1.5, 0.2)] {
            assert!((part(share) - expected).abs() < 1e-9, "{share}: {}", part(share));
        }
    }
}
