//! Waits that grow with each failure in a row.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::Duration;

/// A growing wait before another try: twice as long after each further failure, up to a longest wait.
#[derive(Debug, Clone, Copy)]
pub struct Backoff {
    first: Duration,
    longest: Duration,
}

impl Backoff {
    /// Makes a backoff that waits `first` after the first failure, and never more than `longest`.
    pub const fn new(first: Duration, longest: Duration) -> Self {
        Self { first, longest }
    }

    /// Returns the wait after so many failures in a row.
    pub fn wait(self, failures: u32) -> Duration {
        self.first.saturating_mul(2u32.saturating_pow(failures.saturating_sub(1))).min(self.longest)
    }

    /// Returns that wait, shortened at random by up to a half, so that peers that failed together do not come back together.
    pub fn wait_with_jitter(self, failures: u32) -> Duration {
        shortened(self.wait(failures), random_part())
    }
}

fn shortened(wait: Duration, part: f64) -> Duration {
    wait.saturating_sub((wait / 2).mul_f64(part))
}

/// Returns a random number from 0 up to, and without, 1.
pub fn random_part() -> f64 {
    (RandomState::new().build_hasher().finish() % 1024) as f64 / 1024.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_the_longest_and_differ() {
        let backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(2));
        for (failures, longest) in [(1, 100), (2, 200), (3, 400), (5, 1600), (6, 2000), (60, 2000), (u32::MAX, 2000)] {
            let longest = Duration::from_millis(longest);
            assert_eq!(backoff.wait(failures), longest);
            assert_eq!(shortened(longest, 0.0), longest);
            for part in [0.001, 0.5, 0.999] {
                let wait = shortened(longest, part);
                assert!(wait < longest && wait >= longest / 2, "{failures} {part}: {wait:?}");
            }
            let wait = backoff.wait_with_jitter(failures);
            assert!(wait <= longest && wait >= longest / 2, "{failures}: {wait:?}");
        }
    }
}
