//! Answers to status requests, for as long as they hold. Pure: no I/O, and no clock of its own.
//!
//! Each request that differs has a slot, and at most one fetch for it is under way: the first who asks when the answer is
//! too old fetches, and who asks meanwhile waits for the same. A fetch that failed counts like one that did not: the
//! target is asked again when `status.cache` has passed, and not before.

use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::watch;

use crate::reason::StatusResult;
use crate::wire::status::Request;

/// Different binary requests whose answers are kept: what clients send are a handful. The two that ask for text have
/// room beside these, so no stranger who asks for one thing after another drives those out.
pub const MAX_REQUESTS: usize = 16;

/// What one who asked is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// What is counted.
    pub result: StatusResult,
    /// What is sent; nothing where the connection is just closed.
    pub answer: Bytes,
}

/// What one who asks is to do.
#[derive(Debug)]
pub enum Turn {
    /// Nothing more: this is it.
    Told(Told),
    /// Wait for the fetch of another. Where that one fails without a word, ask again.
    Wait(watch::Receiver<Option<Told>>),
    /// Fetch, and then tell [`StatusCache::fetched`].
    Fetch(Fetch),
}

/// A fetch that is under way. Dropped before its end, it counts as failed.
#[derive(Debug)]
pub struct Fetch {
    request: Request,
    told: watch::Sender<Option<Told>>,
}

/// The answers of one listener.
#[derive(Debug)]
pub struct StatusCache {
    cache: Duration,
    stale: Duration,
    slots: Vec<Slot>,
}

#[derive(Debug)]
struct Slot {
    request: Request,
    asked: Instant,
    /// When the last fetch ended, however it did.
    tried: Option<Instant>,
    answer: Option<(Instant, Bytes)>,
    fetch: Option<watch::Receiver<Option<Told>>>,
}

impl StatusCache {
    /// An empty one. Answers are as good as new for `cache`, and better than nothing for `stale` more.
    pub fn new(cache: Duration, stale: Duration) -> Self {
        Self { cache, stale, slots: Vec::new() }
    }

    /// Answers are as good as these say from now on.
    pub fn set(&mut self, cache: Duration, stale: Duration) {
        (self.cache, self.stale) = (cache, stale);
    }

    /// Somebody asks.
    pub fn turn(&mut self, request: &Request, now: Instant) -> Turn {
        let (cache, stale) = (self.cache, self.stale);
        let Some(slot) = self.slot(request, now) else {
            return Turn::Told(Told { result: StatusResult::Refused, answer: Bytes::new() });
        };
        slot.asked = now;
        if let Some(fetch) = &slot.fetch {
            if fetch.has_changed().is_ok() {
                return Turn::Wait(fetch.clone());
            }
            // Its task is gone.
            slot.fetch = None;
            slot.tried = Some(now);
        }
        if slot.is_recent(now, cache) {
            return Turn::Told(slot.told(now, cache, stale));
        }
        let (told, fetch) = watch::channel(None);
        slot.fetch = Some(fetch);
        Turn::Fetch(Fetch { request: request.clone(), told })
    }

    /// A fetch has ended, with an answer or without. Gives what all who wait for it are told.
    pub fn fetched(&mut self, fetch: Fetch, answer: Option<Bytes>, now: Instant) -> Told {
        let (cache, stale) = (self.cache, self.stale);
        let fresh = answer.map(|answer| Told { result: StatusResult::Fresh, answer });
        let mut told = fresh.clone();
        // While it is fetched for, a slot stays.
        if let Some(slot) = self.slots.iter_mut().find(|slot| slot.request == fetch.request) {
            slot.fetch = None;
            slot.tried = Some(now);
            match fresh {
                Some(fresh) => slot.answer = Some((now, fresh.answer)),
                None => told = Some(slot.told(now, cache, stale)),
            }
        }
        let told = told.unwrap_or(Told { result: StatusResult::Failed, answer: Bytes::new() });
        fetch.told.send_replace(Some(told.clone()));
        told
    }

    /// The slot of `request`. `None` where all are taken: those that were asked for the longest ago go first, but
    /// none whose target was asked within `status.cache`, so different requests in any number lead to few fetches.
    fn slot(&mut self, request: &Request, now: Instant) -> Option<&mut Slot> {
        if let Some(index) = self.slots.iter().position(|slot| slot.request == *request) {
            return self.slots.get_mut(index);
        }
        let new = Slot { request: request.clone(), asked: now, tried: None, answer: None, fetch: None };
        let is_binary = |slot: &Slot| matches!(slot.request, Request::Parts { .. });
        if is_binary(&new) && self.slots.iter().filter(|slot| is_binary(slot)).count() >= MAX_REQUESTS {
            let idle = |slot: &&mut Slot| is_binary(slot) && !slot.is_fetched() && !slot.is_recent(now, self.cache);
            let oldest = self.slots.iter_mut().filter(idle).min_by_key(|slot| slot.asked)?;
            *oldest = new;
            return Some(oldest);
        }
        self.slots.push(new);
        self.slots.last_mut()
    }
}

impl Slot {
    fn is_fetched(&self) -> bool {
        self.fetch.as_ref().is_some_and(|fetch| fetch.has_changed().is_ok())
    }

    /// Whether it was tried so lately that it is not tried again.
    fn is_recent(&self, now: Instant, cache: Duration) -> bool {
        self.tried.is_some_and(|tried| now.saturating_duration_since(tried) < cache)
    }

    /// What there is to tell without a fetch.
    fn told(&self, now: Instant, cache: Duration, stale: Duration) -> Told {
        let known = self.answer.as_ref().map(|(at, answer)| (now.saturating_duration_since(*at), answer));
        let (result, answer) = match known {
            Some((age, answer)) if age < cache => (StatusResult::Cached, answer.clone()),
            Some((age, answer)) if age < cache + stale => (StatusResult::Stale, answer.clone()),
            _ => (StatusResult::Failed, Bytes::new()),
        };
        Told { result, answer }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CACHE: Duration = Duration::from_secs(5);
    const STALE: Duration = Duration::from_secs(60);

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn parts(number: usize) -> Request {
        Request::Parts { flags: 0x41, name: number.to_string().into_bytes() }
    }

    fn told(result: StatusResult, answer: &'static str) -> Told {
        Told { result, answer: Bytes::from_static(answer.as_bytes()) }
    }

    #[track_caller]
    fn fetch(turn: Turn) -> Fetch {
        let Turn::Fetch(fetch) = turn else { panic!("{turn:?}") };
        fetch
    }

    #[track_caller]
    fn wait(turn: Turn) -> watch::Receiver<Option<Told>> {
        let Turn::Wait(waiting) = turn else { panic!("{turn:?}") };
        waiting
    }

    #[track_caller]
    fn assert_told(turn: Turn, result: StatusResult, answer: &'static str) {
        let Turn::Told(is) = turn else { panic!("{turn:?}") };
        assert_eq!(is, told(result, answer));
    }

    fn answer(text: &'static str) -> Option<Bytes> {
        Some(Bytes::from_static(text.as_bytes()))
    }

    #[test]
    fn an_answer_is_given_until_it_is_too_old_and_fetched_once_then() {
        let (mut cache, start) = (StatusCache::new(CACHE, STALE), Instant::now());
        let first = fetch(cache.turn(&Request::Xml, start));
        let waiting: Vec<_> = (0..1000).map(|_| wait(cache.turn(&Request::Xml, start + seconds(9)))).collect();
        // Another request is another matter.
        let _json = fetch(cache.turn(&Request::Json, start));
        let now = start + seconds(10);
        assert_eq!(cache.fetched(first, answer("one"), now), told(StatusResult::Fresh, "one"));
        for waits in waiting {
            assert_eq!(*waits.borrow(), Some(told(StatusResult::Fresh, "one")));
        }
        let last = now + CACHE - Duration::from_nanos(1);
        assert_told(cache.turn(&Request::Xml, now), StatusResult::Cached, "one");
        assert_told(cache.turn(&Request::Xml, last), StatusResult::Cached, "one");
        let second = fetch(cache.turn(&Request::Xml, now + CACHE));
        wait(cache.turn(&Request::Xml, now + CACHE));
        cache.fetched(second, answer("two"), now + CACHE);
        assert_told(cache.turn(&Request::Xml, now + CACHE), StatusResult::Cached, "two");
    }

    #[test]
    fn without_the_target_an_answer_is_given_for_a_while_and_the_target_is_asked_at_the_same_pace() {
        let (mut cache, start) = (StatusCache::new(CACHE, STALE), Instant::now());
        let first = fetch(cache.turn(&Request::Xml, start));
        cache.fetched(first, answer("one"), start);
        let mut tries = 0;
        for second in 5..65 {
            match cache.turn(&Request::Xml, start + seconds(second)) {
                Turn::Fetch(fetch) => {
                    tries += 1;
                    let waiting = wait(cache.turn(&Request::Xml, start + seconds(second)));
                    let stale = told(StatusResult::Stale, "one");
                    assert_eq!(cache.fetched(fetch, None, start + seconds(second)), stale);
                    assert_eq!(*waiting.borrow(), Some(stale));
                }
                turn => assert_told(turn, StatusResult::Stale, "one"),
            }
        }
        assert_eq!(tries, 12, "one in five seconds");
        let last = fetch(cache.turn(&Request::Xml, start + CACHE + STALE));
        assert_eq!(cache.fetched(last, None, start + CACHE + STALE), told(StatusResult::Failed, ""));
        assert_told(cache.turn(&Request::Xml, start + seconds(66)), StatusResult::Failed, "");
        let back = fetch(cache.turn(&Request::Xml, start + seconds(70)));
        cache.fetched(back, answer("two"), start + seconds(70));
        assert_told(cache.turn(&Request::Xml, start + seconds(71)), StatusResult::Cached, "two");
    }

    #[test]
    fn a_fetch_whose_task_is_gone_has_failed() {
        let (mut cache, start) = (StatusCache::new(CACHE, STALE), Instant::now());
        let first = fetch(cache.turn(&Request::Xml, start));
        let waiting = wait(cache.turn(&Request::Xml, start));
        drop(first);
        assert!(waiting.has_changed().is_err(), "who waits is told that nothing comes");
        assert_told(cache.turn(&Request::Xml, start), StatusResult::Failed, "");
        assert_told(cache.turn(&Request::Xml, start + seconds(4)), StatusResult::Failed, "");
        let again = fetch(cache.turn(&Request::Xml, start + CACHE));
        cache.fetched(again, answer("one"), start + CACHE);
    }

    #[test]
    fn different_requests_are_few_and_lead_to_few_fetches() {
        let (mut cache, start) = (StatusCache::new(CACHE, STALE), Instant::now());
        let mut fetches = 0;
        let mut ask_all = |cache: &mut StatusCache, now: Instant| {
            for number in 0..1000 {
                match cache.turn(&parts(number), now) {
                    Turn::Fetch(fetch) => {
                        fetches += 1;
                        cache.fetched(fetch, answer("one"), now);
                    }
                    Turn::Told(told) => assert!(matches!(told.result, StatusResult::Refused | StatusResult::Cached)),
                    turn => panic!("{turn:?}"),
                }
            }
            fetches
        };
        for second in 0..5 {
            assert_eq!(ask_all(&mut cache, start + seconds(second)), MAX_REQUESTS);
        }
        assert_eq!(ask_all(&mut cache, start + seconds(5)), 2 * MAX_REQUESTS);
        assert_eq!(cache.slots.len(), MAX_REQUESTS);
        // What asks for text has its room.
        for text in [Request::Xml, Request::Json] {
            let turn = fetch(cache.turn(&text, start + seconds(6)));
            cache.fetched(turn, answer("text"), start + seconds(6));
            assert_told(cache.turn(&text, start + seconds(7)), StatusResult::Cached, "text");
        }
        ask_all(&mut cache, start + seconds(60));
        assert_told(cache.turn(&Request::Xml, start + seconds(10)), StatusResult::Cached, "text");
        assert_eq!(cache.slots.len(), MAX_REQUESTS + 2);
    }

    #[test]
    fn the_one_asked_for_the_longest_ago_goes_first_and_none_that_is_fetched() {
        let (mut cache, start) = (StatusCache::new(CACHE, STALE), Instant::now());
        let held = fetch(cache.turn(&parts(0), start));
        for number in 1..MAX_REQUESTS {
            let turn = fetch(cache.turn(&parts(number), start));
            cache.fetched(turn, answer("one"), start);
        }
        assert_told(cache.turn(&parts(1), start + seconds(1)), StatusResult::Cached, "one");
        for number in 0..MAX_REQUESTS - 1 {
            let turn = fetch(cache.turn(&parts(100 + number), start + CACHE));
            cache.fetched(turn, answer("two"), start + CACHE);
            let there = cache.slots.iter().any(|slot| slot.request == parts(1));
            assert_eq!(there, number < MAX_REQUESTS - 2, "after {number}");
        }
        assert_told(cache.turn(&parts(999), start + CACHE), StatusResult::Refused, "");
        assert_eq!(cache.fetched(held, answer("held"), start + CACHE), told(StatusResult::Fresh, "held"));
    }
}
