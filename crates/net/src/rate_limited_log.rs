//! Log lines that a peer can cause, kept from filling the disk.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// The duration of one window.
pub const LOG_WINDOW: Duration = Duration::from_secs(10);
/// Low bits of the state that count lines; the others are the time at which the window began.
const COUNT_BITS: u32 = 16;

/// A rate limit for the lines of one call site, which lets the first few of every ten seconds through.
///
/// One static for each call site, shared by all threads, without a lock:
///
/// ```
/// # use std::time::Instant;
/// # use otproxy_net::RateLimitedLog;
/// static BAD_HEADERS: RateLimitedLog = RateLimitedLog::new(5);
/// if let Some(suppressed) = BAD_HEADERS.allow(Instant::now()) {
///     tracing::warn!(suppressed, "bad PROXY header");
/// }
/// ```
#[derive(Debug)]
pub struct RateLimitedLog {
    lines: u16,
    /// Milliseconds from `base` to the window's start, and the number of its lines.
    state: AtomicU64,
    suppressed: AtomicU64,
    base: OnceLock<Instant>,
}

impl RateLimitedLog {
    /// Makes a log of at most `lines` in a window, which begins with its first line.
    pub const fn new(lines: u16) -> Self {
        Self { lines, state: AtomicU64::new(0), suppressed: AtomicU64::new(0), base: OnceLock::new() }
    }

    /// Returns `Some` if a line may be written now, with the number of lines suppressed since the last one that was
    /// written.
    pub fn allow(&self, now: Instant) -> Option<u64> {
        let now = now.saturating_duration_since(*self.base.get_or_init(|| now)).as_millis() as u64;
        let turn = |state: u64| {
            let (start, count) = (state >> COUNT_BITS, state & ((1 << COUNT_BITS) - 1));
            if now.saturating_sub(start) >= LOG_WINDOW.as_millis() as u64 {
                (self.lines > 0).then_some(now << COUNT_BITS | 1)
            } else {
                (count < self.lines.into()).then_some(state + 1)
            }
        };
        match self.state.fetch_update(Ordering::Relaxed, Ordering::Relaxed, turn) {
            Ok(_) => Some(self.suppressed.swap(0, Ordering::Relaxed)),
            Err(_) => {
                self.suppressed.fetch_add(1, Ordering::Relaxed);
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_has_so_many_lines_and_the_next_tells_of_the_rest() {
        let (log, start) = (RateLimitedLog::new(3), Instant::now());
        for _ in 0..3 {
            assert_eq!(log.allow(start), Some(0));
        }
        for ms in 0..100 {
            assert_eq!(log.allow(start + Duration::from_millis(ms * 99)), None);
        }
        assert_eq!(log.allow(start + LOG_WINDOW), Some(100));
        assert_eq!(log.allow(start + LOG_WINDOW), Some(0));
        assert_eq!(log.allow(start + Duration::from_millis(5)), Some(0), "an older clock is no new window");
        assert_eq!(log.allow(start + LOG_WINDOW), None);
        assert_eq!(log.allow(start + 100 * LOG_WINDOW), Some(1));
    }

    #[test]
    fn none_at_all() {
        let (log, start) = (RateLimitedLog::new(0), Instant::now());
        assert_eq!(log.allow(start), None);
        assert_eq!(log.allow(start + 5 * LOG_WINDOW), None);
    }

    #[test]
    fn threads_together_write_no_more() {
        let (log, now) = (RateLimitedLog::new(10), Instant::now());
        // The numbers of suppressed lines that the written lines tell of.
        let told: Vec<u64> = std::thread::scope(|scope| {
            let threads: Vec<_> =
                (0..8).map(|_| scope.spawn(|| (0..1000).filter_map(|_| log.allow(now)).collect::<Vec<_>>())).collect();
            threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
        });
        assert_eq!(told.len(), 10);
        // A thread may be held up between taking its number and reporting it, while others are suppressed.
        let rest = log.allow(now + LOG_WINDOW).expect("a new window has room");
        assert_eq!(told.iter().sum::<u64>() + rest, 8 * 1000 - 10, "every line is accounted for");
    }
}
