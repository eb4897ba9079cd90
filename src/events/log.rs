//! The log of events.

use std::collections::VecDeque;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use tokio::sync::watch;

use super::event::{Event, EventKind, Happening};
use otproxy_net::RateLimitedLog;
use otproxy_protocol::Word as _;

/// Events that are kept, of all kinds together.
pub const EVENTS_KEPT: usize = 256;
/// Events of one kind within ten seconds; more are only counted, and the next one says how many.
pub const EVENTS_PER_WINDOW: u16 = 5;

/// The last events.
///
/// A kind has five events in ten seconds at most. Once [`EVENTS_KEPT`] are there, a new one takes the place of the oldest of that kind
/// which has the most: so a flood of one kind drives out its own events, and leaves those of all others.
#[derive(Debug)]
pub struct EventLog {
    kept: Mutex<Kept>,
    limits: Vec<RateLimitedLog>,
    newest: watch::Sender<u64>,
}

#[derive(Debug)]
struct Kept {
    /// In the order of their numbers.
    events: VecDeque<Event>,
    /// How many there are of each kind.
    counts: Vec<usize>,
    next: u64,
}

impl Default for EventLog {
    fn default() -> Self {
        Self::new(SystemTime::now())
    }
}

impl EventLog {
    /// Makes an empty log. Its numbers begin with the milliseconds of this time, so that those of a later process are higher.
    #[must_use]
    pub fn new(now: SystemTime) -> Self {
        let began = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64;
        let kinds = EventKind::ALL.len();
        let kept = Kept { events: VecDeque::with_capacity(EVENTS_KEPT), counts: vec![0; kinds], next: began + 1 };
        let limits = EventKind::ALL.iter().map(|_| RateLimitedLog::new(EVENTS_PER_WINDOW)).collect();
        Self { kept: Mutex::new(kept), limits, newest: watch::Sender::new(began) }
    }

    /// Takes an event of now, unless there were too many of its kind of late.
    pub fn emit(&self, what: Happening) {
        self.emit_at(what, Instant::now(), SystemTime::now());
    }

    /// Takes an event of a given time.
    pub fn emit_at(&self, what: Happening, now: Instant, time: SystemTime) {
        let kind = what.kind();
        let Some(suppressed) = self.limits.get(kind.index()).and_then(|limit| limit.allow(now)) else { return };
        let serial = {
            let mut kept = self.kept.lock();
            let serial = kept.next;
            kept.put(Event { serial, time, suppressed, what: what.cut() });
            serial
        };
        self.newest.send_modify(|newest| *newest = serial.max(*newest));
    }

    /// Returns the events after that number, at most so many of them, the newest last: of more the newest.
    pub fn after(&self, serial: u64, limit: usize) -> Vec<Event> {
        let kept = self.kept.lock();
        let from = kept.events.partition_point(|event| event.serial <= serial);
        kept.events.range(from.max(kept.events.len().saturating_sub(limit))..).cloned().collect()
    }

    /// Returns the number of the newest event, and each that follows.
    pub fn newest(&self) -> watch::Receiver<u64> {
        self.newest.subscribe()
    }
}

impl Kept {
    fn put(&mut self, event: Event) {
        if self.events.len() >= EVENTS_KEPT {
            self.make_room();
        }
        self.next = event.serial + 1;
        if let Some(count) = self.counts.get_mut(event.what.kind().index()) {
            *count += 1;
        }
        self.events.push_back(event);
    }

    fn make_room(&mut self) {
        let most = self.counts.iter_mut().enumerate().max_by_key(|(_, count)| **count);
        let Some((kind, count)) = most else { return };
        if let Some(oldest) = self.events.iter().position(|event| event.what.kind().index() == kind) {
            self.events.remove(oldest);
            *count -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const WINDOW: Duration = otproxy_net::LOG_WINDOW;

    fn stall(port: u16) -> Happening {
        Happening::GameStall { port, seconds: 1.0, ongoing: false }
    }

    fn at(serial: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_millis(serial)
    }

    #[test]
    fn events_are_numbered_on_and_found_by_their_numbers() {
        let (log, mut now) = (EventLog::new(at(1_000)), Instant::now());
        assert_eq!((*log.newest().borrow(), log.after(0, 10)), (1_000, Vec::new()));
        for port in 0..20 {
            log.emit_at(stall(port), now, at(u64::from(port)));
            now += WINDOW;
        }
        let serials = |after, limit| log.after(after, limit).iter().map(|event| event.serial).collect::<Vec<_>>();
        assert_eq!(serials(0, 3), [1_018, 1_019, 1_020], "the newest, in order");
        assert_eq!(serials(1_018, 10), [1_019, 1_020]);
        assert_eq!((serials(1_020, 10).len(), serials(u64::MAX, 10).len(), *log.newest().borrow()), (0, 0, 1_020));
    }

    #[test]
    fn too_many_of_a_kind_are_counted_and_the_next_one_tells_of_them() {
        let (log, now) = (EventLog::new(at(0)), Instant::now());
        (0..100).for_each(|_| log.emit_at(stall(1), now, at(0)));
        log.emit_at(Happening::Defect { tasks: 1 }, now, at(0));
        log.emit_at(stall(2), now + WINDOW, at(0));
        let all = log.after(0, EVENTS_KEPT);
        assert_eq!(all.len(), usize::from(EVENTS_PER_WINDOW) + 2);
        assert_eq!(all.iter().map(|event| event.suppressed).sum::<u64>(), 95);
        assert_eq!(all.last().map(|event| event.suppressed), Some(95));
    }

    #[test]
    fn a_flood_of_one_kind_takes_the_places_of_its_own_alone() {
        let (log, mut now) = (EventLog::new(at(0)), Instant::now());
        for tasks in 0..3 {
            log.emit_at(Happening::Defect { tasks }, now, at(0));
        }
        log.emit_at(Happening::Reload { error: None, errors: 0, restart: 0 }, now, at(0));
        for _ in 0..10_000 {
            log.emit_at(stall(1), now, at(0));
            now += WINDOW;
        }
        let all = log.after(0, usize::MAX);
        assert_eq!(all.len(), EVENTS_KEPT);
        let of = |kind| all.iter().filter(|event| event.what.kind() == kind).count();
        assert_eq!((of(EventKind::Defect), of(EventKind::Reload)), (3, 1));
        assert!(all.is_sorted_by_key(|event| event.serial));
        assert_eq!(all.last().map(|event| event.serial), Some(10_004));
    }
}
