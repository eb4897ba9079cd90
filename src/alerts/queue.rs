//! The events that wait to be told, and the times at which they may be. Pure.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use crate::events::Event;
use otproxy_net::Backoff;

/// Events that wait; of more the oldest are left out, and counted in the next message.
pub const MAX_WAITING: usize = 64;
/// The time for which events are gathered into one message, from the first of them.
pub const GATHERED: Duration = Duration::from_secs(2);
/// The least time from one message to the next.
pub const EVERY: Duration = Duration::from_secs(10);
/// The wait after the first failure; it doubles with each further one.
pub const FIRST_AGAIN: Duration = Duration::from_secs(1);
/// The longest such wait, also where the other side asks for a longer one.
pub const LONGEST_AGAIN: Duration = Duration::from_secs(300);

const BACKOFF: Backoff = Backoff::new(FIRST_AGAIN, LONGEST_AGAIN);

/// The events of a message.
#[derive(Debug, Default, Clone, PartialEq)]
pub(super) struct Batch {
    pub events: Vec<Event>,
    /// Events that were left out before them.
    pub left_out: u64,
}

/// The events that wait.
#[derive(Debug, Default)]
pub(super) struct AlertQueue {
    events: VecDeque<Event>,
    left_out: u64,
    /// The time of the first that came since there were none.
    since: Option<Instant>,
    /// The time of the last message.
    sent: Option<Instant>,
    failures: u32,
    /// The time before which nothing is tried again.
    again: Option<Instant>,
}

impl AlertQueue {
    /// Adds an event.
    pub fn push(&mut self, event: Event, now: Instant) {
        self.since.get_or_insert(now);
        self.events.push_back(event);
        self.shorten();
    }

    /// Counts events that nobody will hear of.
    pub fn leave_out(&mut self, events: u64) {
        self.left_out = self.left_out.saturating_add(events);
    }

    /// Returns when the next message may be tried; `None` while there is nothing to tell.
    pub fn due(&self) -> Option<Instant> {
        let gathered = self.since? + GATHERED;
        let paced = self.sent.map_or(gathered, |sent| gathered.max(sent + EVERY));
        Some(self.again.map_or(paced, |again| paced.max(again)))
    }

    /// Takes all events that wait.
    pub fn take(&mut self) -> Batch {
        self.since = None;
        Batch { events: self.events.drain(..).collect(), left_out: std::mem::take(&mut self.left_out) }
    }

    /// Puts back the events of a batch that were not told.
    pub fn put_back(&mut self, batch: Batch, now: Instant) {
        self.leave_out(batch.left_out);
        batch.events.into_iter().rev().for_each(|event| self.events.push_front(event));
        if !self.events.is_empty() {
            // They were gathered already.
            self.since = Some(now.checked_sub(GATHERED).unwrap_or(now));
        }
        self.shorten();
    }

    /// Records that a message has arrived, or never will.
    pub fn done(&mut self, now: Instant) {
        (self.sent, self.failures, self.again) = (Some(now), 0, None);
    }

    /// Records a failure after which it is tried again; the other side may ask for a wait.
    pub fn failed(&mut self, asked: Option<Duration>, now: Instant) {
        self.failures = self.failures.saturating_add(1);
        let wait = BACKOFF.wait(self.failures).max(asked.unwrap_or_default().min(LONGEST_AGAIN));
        self.again = Some(now + wait);
    }

    /// Tries at once whatever had failed, as it goes elsewhere now.
    pub fn elsewhere(&mut self) {
        (self.failures, self.again) = (0, None);
    }

    fn shorten(&mut self) {
        while self.events.len() > MAX_WAITING {
            self.events.pop_front();
            self.left_out = self.left_out.saturating_add(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;
    use crate::events::Happening;

    const SECOND: Duration = Duration::from_secs(1);

    fn event(serial: u64) -> Event {
        Event { serial, time: SystemTime::UNIX_EPOCH, suppressed: 0, what: Happening::Defect { tasks: serial } }
    }

    #[test]
    fn the_oldest_go_and_are_counted() {
        let (mut queue, now) = (AlertQueue::default(), Instant::now());
        (0..100).for_each(|serial| queue.push(event(serial), now));
        let batch = queue.take();
        assert_eq!((batch.events.len(), batch.left_out, batch.events[0].serial), (MAX_WAITING, 36, 36));
        assert_eq!((queue.due(), queue.take()), (None, Batch::default()));
        // A batch that was not told goes before what came meanwhile, and its oldest go first.
        queue.push(event(100), now);
        queue.put_back(batch, now);
        let batch = queue.take();
        assert_eq!((batch.events.len(), batch.left_out, batch.events[0].serial), (MAX_WAITING, 37, 37));
        assert_eq!(batch.events.last().unwrap().serial, 100);
    }

    #[test]
    fn messages_have_their_times() {
        let (mut queue, start) = (AlertQueue::default(), Instant::now());
        assert_eq!(queue.due(), None);
        queue.push(event(1), start);
        queue.push(event(2), start + SECOND);
        assert_eq!(queue.due(), Some(start + GATHERED));
        queue.take();
        queue.done(start + GATHERED);
        queue.push(event(3), start + 3 * SECOND);
        assert_eq!(queue.due(), Some(start + GATHERED + EVERY), "one message in ten seconds");
        let now = start + 12 * SECOND;
        let tried = (0..10).map(|_| {
            let batch = queue.take();
            queue.failed(None, now);
            queue.put_back(batch, now);
            queue.due().unwrap().duration_since(now).as_secs()
        });
        let waits: Vec<_> = tried.collect();
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300]);
        queue.elsewhere();
        queue.failed(Some(7 * SECOND), now);
        assert_eq!(queue.due(), Some(now + 7 * SECOND), "the other side says when");
        queue.failed(Some(86_400 * SECOND), now);
        assert_eq!(queue.due(), Some(now + LONGEST_AGAIN), "as far as that goes");
        queue.elsewhere();
        assert_eq!(queue.due(), Some(now), "they were gathered already");
    }
}
