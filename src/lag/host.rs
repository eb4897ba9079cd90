//! Threads that had no turn in time: measured by each of them, and judged together.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use prometheus::Histogram;
use tokio::time::sleep;

use super::proc::{HostShare, HostTimes};

/// The time from one turn to the next that a thread asks for.
pub const TICK: Duration = Duration::from_millis(100);
/// The delay of a turn from which on a thread was held up.
pub const HELD_UP: Duration = Duration::from_millis(100);
/// The least time for which threads were held up that is told of.
pub const LEAST_DELAY: Duration = Duration::from_millis(200);
/// Delays with less than this between them are one.
const TOGETHER: Duration = Duration::from_millis(200);
/// The time after its end after which a delay is told of: by then all threads have told theirs.
const SETTLED: Duration = Duration::from_millis(500);
/// The longest delay that is waited for.
const LONGEST: Duration = Duration::from_secs(60);
/// The name of the thread that carries no sessions.
pub(super) const MAIN: &str = "main";
/// Delays that wait to be looked at; of more the oldest are forgotten.
pub const WAITING: usize = 256;
/// Delays that are remembered, to tell whose a stall was.
const REMEMBERED: usize = 256;
/// Times of the kernel that are remembered, one a second.
const TIMES: usize = 90;

/// A time in which a thread had no turn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delay {
    /// The thread.
    pub thread: Arc<str>,
    /// The time at which its turn was due.
    pub from: Instant,
    /// The time at which it came.
    pub until: Instant,
}

/// The delays of all threads of a process, and what the kernel says of it.
#[derive(Debug, Default)]
pub struct Host {
    threads: AtomicUsize,
    delays: Mutex<VecDeque<Delay>>,
    /// Microseconds.
    longest: AtomicU64,
    times: Mutex<VecDeque<(Instant, HostTimes)>>,
}

impl Host {
    /// Counts one more thread that tells its delays.
    pub fn add_thread(&self) {
        self.threads.fetch_add(1, Ordering::Relaxed);
    }

    /// Takes the delay of a thread whose turn was due.
    pub fn record(&self, thread: &Arc<str>, due: Instant, now: Instant) {
        let delay = now.saturating_duration_since(due);
        let micros = u64::try_from(delay.as_micros()).unwrap_or(u64::MAX);
        self.longest.fetch_max(micros, Ordering::Relaxed);
        if delay >= HELD_UP {
            let mut delays = self.delays.lock();
            if delays.len() >= WAITING {
                delays.pop_front();
            }
            delays.push_back(Delay { thread: Arc::clone(thread), from: due, until: now });
        }
    }

    /// Returns the longest delay since the last time that this was called.
    pub fn take_longest(&self) -> Duration {
        Duration::from_micros(self.longest.swap(0, Ordering::Relaxed))
    }

    /// Returns the number of threads, and the delays since the last time that this was called.
    pub(super) fn take(&self) -> (usize, VecDeque<Delay>) {
        (self.threads.load(Ordering::Relaxed), std::mem::take(&mut *self.delays.lock()))
    }

    /// Asks the kernel how this process fares. It reads files, though none of a disk. Returns what is new since the last time.
    pub fn look(&self) -> HostShare {
        let now = HostTimes::read();
        let mut times = self.times.lock();
        let share = times.back().map(|(_, before)| now.since(before)).unwrap_or_default();
        if times.len() >= TIMES {
            times.pop_front();
        }
        times.push_back((Instant::now(), now));
        share
    }

    /// Returns what the kernel says of the time from then on, as far as it was asked.
    pub(super) fn share_since(&self, from: Instant) -> HostShare {
        let times = self.times.lock();
        let before = times.iter().rev().find(|(at, _)| *at <= from).or_else(|| times.front());
        before.zip(times.back()).map(|((_, before), (_, last))| last.since(before)).unwrap_or_default()
    }
}

/// Measures for ever how late the turns of this thread come. `histogram` has all of them.
pub async fn keep_ticking(thread: String, host: Arc<Host>, histogram: Histogram) {
    let thread = Arc::from(thread);
    host.add_thread();
    loop {
        let due = Instant::now() + TICK;
        sleep(TICK).await;
        let now = Instant::now();
        histogram.observe(now.saturating_duration_since(due).as_secs_f64());
        host.record(&thread, due, now);
    }
}

/// A time in which threads were held up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldUp {
    /// Its beginning.
    pub from: Instant,
    /// Its end.
    pub until: Instant,
    /// The threads; none if all.
    pub threads: Vec<String>,
}

/// The judge of delays. Pure.
#[derive(Debug, Default)]
pub struct HostWatch {
    present: Option<Span>,
    /// The last delays of threads that carry sessions, in no order.
    past: VecDeque<(Instant, Instant)>,
}

#[derive(Debug)]
struct Span {
    from: Instant,
    until: Instant,
    threads: BTreeSet<Arc<str>>,
}

impl HostWatch {
    /// Takes a delay. Returns an earlier one that has nothing to do with it.
    pub fn add(&mut self, delay: &Delay, threads: usize) -> Option<HeldUp> {
        let Delay { thread, from, until } = delay;
        // While the main thread is held up, workers hear from worlds all the same.
        if **thread != *MAIN {
            if self.past.len() >= REMEMBERED {
                self.past.pop_front();
            }
            self.past.push_back((*from, *until));
        }
        let is_near = |span: &Span| *from <= span.until + TOGETHER && span.from <= *until + TOGETHER;
        let earlier = if self.present.as_ref().is_some_and(is_near) { None } else { self.end(threads) };
        let new = || Span { from: *from, until: *until, threads: BTreeSet::new() };
        let span = self.present.get_or_insert_with(new);
        (span.from, span.until) = (span.from.min(*from), span.until.max(*until));
        span.threads.insert(Arc::clone(thread));
        earlier
    }

    /// Returns a time in which threads were held up, once it has settled.
    pub fn due(&mut self, threads: usize, now: Instant) -> Option<HeldUp> {
        let is_due = |span: &Span| {
            now.saturating_duration_since(span.until) >= SETTLED
                || span.until.saturating_duration_since(span.from) >= LONGEST
        };
        if self.present.as_ref().is_some_and(is_due) { self.end(threads) } else { None }
    }

    fn end(&mut self, threads: usize) -> Option<HeldUp> {
        let Span { from, until, threads: held } = self.present.take()?;
        if until.saturating_duration_since(from) < LEAST_DELAY {
            return None;
        }
        let names = if held.len() >= threads { Vec::new() } else { held.iter().map(ToString::to_string).collect() };
        Some(HeldUp { from, until, threads: names })
    }

    /// Returns whether threads that carry sessions were held up for half of this time or more: so what was missing then may have
    /// come and not been taken.
    #[must_use]
    pub fn explains(&self, from: Instant, until: Instant) -> bool {
        let mut delays: Vec<_> =
            self.past.iter().map(|(began, ended)| (*began.max(&from), *ended.min(&until))).collect();
        delays.sort_unstable();
        let (mut held, mut end) = (Duration::ZERO, from);
        // A time in which several threads were held up counts once.
        for (began, ended) in delays {
            held += ended.saturating_duration_since(began.max(end));
            end = end.max(ended);
        }
        held * 2 >= until.saturating_duration_since(from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn delay(thread: &str, start: Instant, from: u64, until: u64) -> Delay {
        Delay { thread: thread.into(), from: start + ms(from), until: start + ms(until) }
    }

    #[test]
    fn threads_that_are_held_up_together_are_told_of_once_when_all_have_said_so() {
        let (mut watch, start) = (HostWatch::default(), Instant::now());
        assert_eq!(watch.add(&delay("worker-0", start, 100, 1000), 2), None);
        assert_eq!(watch.due(2, start + ms(1400)), None);
        assert_eq!(watch.add(&delay("main", start, 130, 1010), 2), None);
        let all = HeldUp { from: start + ms(100), until: start + ms(1010), threads: Vec::new() };
        assert_eq!(watch.due(2, start + ms(1510)), Some(all));
        assert_eq!(watch.due(2, start + ms(9000)), None);
        // One alone, and one so short that nobody feels it.
        watch.add(&delay("worker-1", start, 5000, 5300), 2);
        let one = watch.add(&delay("worker-0", start, 6000, 6120), 2).unwrap();
        assert_eq!(one.threads, ["worker-1"]);
        assert_eq!(watch.due(2, start + ms(7000)), None);
    }

    #[test]
    fn a_stall_that_goes_along_with_a_delay_is_the_host_s() {
        let (mut watch, start) = (HostWatch::default(), Instant::now());
        watch.add(&delay("worker-0", start, 1000, 1900), 1);
        let explains = |watch: &HostWatch, from, until| watch.explains(start + ms(from), start + ms(until));
        assert!(explains(&watch, 1000, 2000), "it goes on");
        watch.add(&delay("worker-1", start, 1100, 1900), 2);
        watch.add(&delay("main", start, 2000, 3000), 2);
        assert!(!explains(&watch, 1000, 3000), "two at once are no more than one, and the main thread carries nobody");
        assert!(!explains(&watch, 0, 3000) && !explains(&watch, 2000, 3000));
        watch.due(1, start + ms(5000));
        assert!(explains(&watch, 1100, 2100), "it is remembered");
    }

    #[test]
    fn memory_is_bounded_and_the_longest_is_known_for_a_second() {
        let (host, start, thread) = (Host::default(), Instant::now(), Arc::from("worker-0"));
        for number in 0..10 * WAITING as u64 {
            host.record(&thread, start, start + ms(100 + number));
        }
        host.record(&thread, start, start + ms(99));
        let (_, delays) = host.take();
        assert_eq!(delays.len(), WAITING);
        assert_eq!((host.take_longest(), host.take_longest()), (ms(99 + 10 * WAITING as u64), ms(0)));
        let mut watch = HostWatch::default();
        for number in 0..1000 {
            watch.add(&delay("worker-0", start, number * 10_000, number * 10_000 + 150), 1);
        }
        assert_eq!(watch.past.len(), REMEMBERED);
        for number in 0..=(2 * TIMES) {
            let share = host.look();
            assert!(number > 0 || share == HostShare::default());
        }
        assert_eq!(host.times.lock().len(), TIMES);
    }

    #[tokio::test(start_paused = true)]
    async fn a_thread_tells_how_late_its_turns_come() {
        let (host, metrics) = (Arc::<Host>::default(), crate::metrics::Metrics::new());
        let histogram = metrics.worker_delay.with_label_values(&["worker-0"]);
        let ticking = tokio::spawn(keep_ticking("worker-0".to_owned(), Arc::clone(&host), histogram.clone()));
        sleep(TICK * 50).await;
        assert!((40..=50).contains(&histogram.get_sample_count()), "{}", histogram.get_sample_count());
        assert_eq!(host.take().0, 1);
        ticking.abort();
    }
}
