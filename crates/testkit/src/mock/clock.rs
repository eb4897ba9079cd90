//! The clock of this process, as packets tell it: nanoseconds since its first use.

use std::hash::{BuildHasher, RandomState};
use std::sync::OnceLock;
use std::time::Instant;

static START: OnceLock<Instant> = OnceLock::new();
static ID: OnceLock<u64> = OnceLock::new();

/// Converts a moment to nanoseconds. Moments before the first use of this clock are 0.
pub fn nanos(moment: Instant) -> u64 {
    let start = START.get_or_init(Instant::now);
    u64::try_from(moment.saturating_duration_since(*start).as_nanos()).unwrap_or(u64::MAX)
}

/// Returns this moment in nanoseconds.
pub fn now() -> u64 {
    nanos(Instant::now())
}

/// Returns a number that tells this process's clock from any other: only times of one clock can be compared.
pub fn id() -> u64 {
    // The keys of a new hasher are random.
    *ID.get_or_init(|| RandomState::new().hash_one(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn counts_nanoseconds_and_never_goes_back() {
        let first = now();
        let moment = Instant::now();
        assert!(nanos(moment) >= first);
        assert_eq!(nanos(moment + Duration::from_millis(3)) - nanos(moment), 3_000_000);
        assert_eq!(id(), id());
    }
}
