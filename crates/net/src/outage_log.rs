//! Log lines about one thing that works or does not, such as the way to the core: an outage fills no disk, however long it
//! lasts.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// The time from one line about a lasting outage to the next.
pub const OUTAGE_AGAIN: Duration = Duration::from_secs(10 * 60);
/// Outages that have lines of their own in that time: what comes and goes fills no disk either.
pub const OUTAGES: u32 = 5;

/// The limit of the lines about one thing that fails for a reason `R`, again and again. The first failure is told at once,
/// and so is the first one for another reason; then one in ten minutes, with the number of those in between; and that it
/// works again.
///
/// ```
/// # use std::time::Instant;
/// # use otproxy_net::OutageLog;
/// let way = OutageLog::default();
/// if let Some(suppressed) = way.failed("refused", Instant::now()) {
///     tracing::warn!(suppressed, "cannot connect");
/// }
/// if let Some(seconds) = way.worked(Instant::now()) {
///     tracing::info!(seconds, "can connect again");
/// }
/// ```
#[derive(Debug)]
pub struct OutageLog<R>(Mutex<State<R>>);

#[derive(Debug)]
struct State<R> {
    /// The reason of the latest failure, and the time of the first one in a row; `None` while it works.
    outage: Option<(R, Instant)>,
    /// True if a line told of that outage.
    told: bool,
    /// The time from which on lines are counted, and their number.
    window: Option<(Instant, u32)>,
    suppressed: u64,
}

impl<R> Default for OutageLog<R> {
    fn default() -> Self {
        Self::new()
    }
}

impl<R> OutageLog<R> {
    /// Makes the log of a thing that works.
    pub const fn new() -> Self {
        Self(Mutex::new(State { outage: None, told: false, window: None, suppressed: 0 }))
    }

    /// Records that it worked. Returns for how many seconds it did not, if a line told of that outage.
    pub fn worked(&self, now: Instant) -> Option<f64> {
        let mut state = self.0.lock();
        let (_, since) = state.outage.take()?;
        std::mem::take(&mut state.told).then(|| now.saturating_duration_since(since).as_secs_f64())
    }
}

impl<R: PartialEq> OutageLog<R> {
    /// Records a failure. Returns `Some` if a line may tell of it, with the number of failures since the last one that a
    /// line told of.
    pub fn failed(&self, reason: R, now: Instant) -> Option<u64> {
        let mut state = self.0.lock();
        let (same, since) = match &state.outage {
            Some((before, since)) => (*before == reason, *since),
            None => (false, now),
        };
        state.outage = Some((reason, since));
        let recent = state.window.filter(|(began, _)| now.saturating_duration_since(*began) < OUTAGE_AGAIN);
        let (began, lines) = recent.unwrap_or((now, 0));
        let most = if same { 1 } else { OUTAGES };
        if lines >= most {
            state.suppressed += 1;
            return None;
        }
        (state.window, state.told) = (Some((began, lines + 1)), true);
        Some(std::mem::take(&mut state.suppressed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn the_first_failure_is_told_then_one_in_ten_minutes_and_that_it_works_again() {
        let (log, start) = (OutageLog::new(), Instant::now());
        assert_eq!(log.worked(start), None, "nothing was wrong");
        // A day, with a failure in each two seconds.
        let told: Vec<_> =
            (0..24 * 60 * 30).filter_map(|n| Some((n, log.failed("refused", start + n * 2 * SECOND)?))).collect();
        assert_eq!(told.len(), 24 * 6);
        assert_eq!(told[..3], [(0, 0), (300, 299), (600, 299)]);
        assert_eq!(log.worked(start + 24 * 3600 * SECOND), Some(24.0 * 3600.0));
        assert_eq!(log.worked(start + 24 * 3600 * SECOND), None, "once");
    }

    #[test]
    fn another_reason_and_another_outage_are_told_at_once() {
        let (log, start) = (OutageLog::new(), Instant::now());
        assert_eq!(log.failed("refused", start), Some(0));
        assert_eq!(log.failed("refused", start + SECOND), None);
        assert_eq!(log.failed("timeout", start + 2 * SECOND), Some(1));
        assert_eq!(log.failed("timeout", start + 3 * SECOND), None);
        assert_eq!(log.worked(start + 4 * SECOND), Some(4.0));
        assert_eq!(log.failed("timeout", start + 5 * SECOND), Some(1));
    }

    #[test]
    fn what_comes_and_goes_has_no_line_each_time() {
        let (log, start) = (OutageLog::new(), Instant::now());
        let mut lines = 0;
        // A day of it.
        for second in 0..24 * 3600 {
            let now = start + second * SECOND;
            if second % 2 == 0 {
                lines += u32::from(log.failed((), now).is_some());
            } else {
                lines += u32::from(log.worked(now).is_some());
            }
        }
        assert_eq!(lines, 24 * 6 * 2 * OUTAGES);
        // One that stays away is told of, though its first failures were not.
        for _ in 0..OUTAGES {
            let _ = log.failed((), start + 24 * 3600 * SECOND);
            let _ = log.worked(start + 24 * 3600 * SECOND);
        }
        assert_eq!(log.failed((), start + 24 * 3600 * SECOND), None);
        assert_eq!(log.failed((), start + 24 * 3600 * SECOND + OUTAGE_AGAIN), Some(1));
        assert_eq!(log.worked(start + 24 * 3600 * SECOND + OUTAGE_AGAIN + SECOND), Some(601.0));
    }

    #[test]
    fn an_older_clock_changes_nothing() {
        let (log, start) = (OutageLog::new(), Instant::now());
        assert_eq!(log.failed((), start + SECOND), Some(0));
        assert_eq!(log.failed((), start), None);
        assert_eq!(log.worked(start), Some(0.0));
    }
}
