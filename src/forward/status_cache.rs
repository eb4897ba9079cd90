//! A cache of answers to status requests. Pure: no I/O, and no clock of its own.
//!
//! Each distinct request has a slot, with at most one fetch in progress: the first request after the answer has become
//! too old fetches, and others wait for the same fetch. A failed fetch counts as a fetch: the target is asked again
//! after `status.cache`, and not earlier.

use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::watch;

use otproxy_protocol::status::StatusRequest;
use otproxy_protocol::words;

/// Distinct binary requests whose answers are kept; clients send a handful. The two requests for text have slots of
/// their own, so that no peer drives those out with one request after another.
pub const MAX_REQUESTS: usize = 16;

words! {
    /// The result of a status request.
    pub enum StatusResult {
        /// Answered with what was known, younger than `status.cache`.
        Cached = "cached",
        /// Answered with what the target was just asked for, by this request or another at the same time.
        Fresh = "fresh",
        /// Answered with what was known before the target had no answer.
        Stale = "stale",
        /// Closed: the target has no answer, and what was known is too old.
        Failed = "failed",
        /// Closed: too many different requests at once, or one that is too long.
        Refused = "refused",
    }
}

/// The answer to one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CachedAnswer {
    /// The result that is counted.
    pub result: StatusResult,
    /// The bytes that are sent; empty if the connection is just closed.
    pub answer: Bytes,
}

/// The action that a request leads to.
#[derive(Debug)]
pub enum Lookup {
    /// Give this answer.
    Cached(CachedAnswer),
    /// Wait for the fetch of another request. If it fails without an answer, ask again.
    Wait(watch::Receiver<Option<CachedAnswer>>),
    /// Fetch, and then call [`StatusCache::fetched`].
    Fetch(Fetch),
}

/// A fetch in progress. Dropped before its end, it counts as failed.
#[derive(Debug)]
pub struct Fetch {
    request: StatusRequest,
    told: watch::Sender<Option<CachedAnswer>>,
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
    request: StatusRequest,
    asked: Instant,
    /// The time of the last fetch's end, successful or not.
    tried: Option<Instant>,
    answer: Option<(Instant, Bytes)>,
    fetch: Option<watch::Receiver<Option<CachedAnswer>>>,
}

impl StatusCache {
    /// Makes an empty cache. Answers count as fresh for `cache`, and are usable for `stale` more.
    pub fn new(cache: Duration, stale: Duration) -> Self {
        Self { cache, stale, slots: Vec::new() }
    }

    /// Changes both times from now on.
    pub fn set(&mut self, cache: Duration, stale: Duration) {
        (self.cache, self.stale) = (cache, stale);
    }

    /// Looks up a request.
    pub fn look_up(&mut self, request: &StatusRequest, now: Instant) -> Lookup {
        let (cache, stale) = (self.cache, self.stale);
        let Some(slot) = self.slot(request, now) else {
            return Lookup::Cached(CachedAnswer { result: StatusResult::Refused, answer: Bytes::new() });
        };
        slot.asked = now;
        if let Some(fetch) = &slot.fetch {
            if fetch.has_changed().is_ok() {
                return Lookup::Wait(fetch.clone());
            }
            // The fetch's task is gone.
            slot.fetch = None;
            slot.tried = Some(now);
        }
        if slot.is_recent(now, cache) {
            return Lookup::Cached(slot.cached(now, cache, stale));
        }
        let (told, fetch) = watch::channel(None);
        slot.fetch = Some(fetch);
        Lookup::Fetch(Fetch { request: request.clone(), told })
    }

    /// Records the end of a fetch, with an answer or without. Returns the answer for all that wait for it.
    pub fn fetched(&mut self, fetch: Fetch, answer: Option<Bytes>, now: Instant) -> CachedAnswer {
        let (cache, stale) = (self.cache, self.stale);
        let fresh = answer.map(|answer| CachedAnswer { result: StatusResult::Fresh, answer });
        let mut told = fresh.clone();
        // A slot stays while it is being fetched for.
        if let Some(slot) = self.slots.iter_mut().find(|slot| slot.request == fetch.request) {
            slot.fetch = None;
            slot.tried = Some(now);
            match fresh {
                Some(fresh) => slot.answer = Some((now, fresh.answer)),
                None => told = Some(slot.cached(now, cache, stale)),
            }
        }
        let told = told.unwrap_or(CachedAnswer { result: StatusResult::Failed, answer: Bytes::new() });
        fetch.told.send_replace(Some(told.clone()));
        told
    }

    /// Returns the slot of `request`; `None` if all are taken. The least recently asked slot is replaced first, but
    /// never one whose target was asked within `status.cache`, so any number of distinct requests leads to few fetches.
    fn slot(&mut self, request: &StatusRequest, now: Instant) -> Option<&mut Slot> {
        if let Some(index) = self.slots.iter().position(|slot| slot.request == *request) {
            return self.slots.get_mut(index);
        }
        let new = Slot { request: request.clone(), asked: now, tried: None, answer: None, fetch: None };
        let is_binary = |slot: &Slot| matches!(slot.request, StatusRequest::Parts { .. });
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

    /// Returns whether it was tried too recently to be tried again.
    fn is_recent(&self, now: Instant, cache: Duration) -> bool {
        self.tried.is_some_and(|tried| now.saturating_duration_since(tried) < cache)
    }

    /// Returns the answer that is available without a fetch.
    fn cached(&self, now: Instant, cache: Duration, stale: Duration) -> CachedAnswer {
        let known = self.answer.as_ref().map(|(at, answer)| (now.saturating_duration_since(*at), answer));
        let (result, answer) = match known {
            Some((age, answer)) if age < cache => (StatusResult::Cached, answer.clone()),
            Some((age, answer)) if age < cache + stale => (StatusResult::Stale, answer.clone()),
            _ => (StatusResult::Failed, Bytes::new()),
        };
        CachedAnswer { result, answer }
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

    fn parts(number: usize) -> StatusRequest {
        StatusRequest::Parts { flags: 0x41, name: number.to_string().into_bytes() }
    }

    fn told(result: StatusResult, answer: &'static str) -> CachedAnswer {
        CachedAnswer { result, answer: Bytes::from_static(answer.as_bytes()) }
    }

    #[track_caller]
    fn fetch(turn: Lookup) -> Fetch {
        let Lookup::Fetch(fetch) = turn else { panic!("{turn:?}") };
        fetch
    }

    #[track_caller]
    fn wait(turn: Lookup) -> watch::Receiver<Option<CachedAnswer>> {
        let Lookup::Wait(waiting) = turn else { panic!("{turn:?}") };
        waiting
    }

    #[track_caller]
    fn assert_told(turn: Lookup, result: StatusResult, answer: &'static str) {
        let Lookup::Cached(is) = turn else { panic!("{turn:?}") };
        assert_eq!(is, told(result, answer));
    }

    fn answer(text: &'static str) -> Option<Bytes> {
        Some(Bytes::from_static(text.as_bytes()))
    }

    #[test]
    fn an_answer_is_given_until_it_is_too_old_and_fetched_once_then() {
        let (mut cache, start) = (StatusCache::new(CACHE, STALE), Instant::now());
        let first = fetch(cache.look_up(&StatusRequest::Xml, start));
        let waiting: Vec<_> = (0..1000).map(|_| wait(cache.look_up(&StatusRequest::Xml, start + seconds(9)))).collect();
        // Another request has another slot.
        let _json = fetch(cache.look_up(&StatusRequest::Json, start));
        let now = start + seconds(10);
        assert_eq!(cache.fetched(first, answer("one"), now), told(StatusResult::Fresh, "one"));
        for waits in waiting {
            assert_eq!(*waits.borrow(), Some(told(StatusResult::Fresh, "one")));
        }
        let last = now + CACHE - Duration::from_nanos(1);
        assert_told(cache.look_up(&StatusRequest::Xml, now), StatusResult::Cached, "one");
        assert_told(cache.look_up(&StatusRequest::Xml, last), StatusResult::Cached, "one");
        let second = fetch(cache.look_up(&StatusRequest::Xml, now + CACHE));
        wait(cache.look_up(&StatusRequest::Xml, now + CACHE));
        cache.fetched(second, answer("two"), now + CACHE);
        assert_told(cache.look_up(&StatusRequest::Xml, now + CACHE), StatusResult::Cached, "two");
    }

    #[test]
    fn without_the_target_an_answer_is_given_for_a_while_and_the_target_is_asked_at_the_same_pace() {
        let (mut cache, start) = (StatusCache::new(CACHE, STALE), Instant::now());
        let first = fetch(cache.look_up(&StatusRequest::Xml, start));
        cache.fetched(first, answer("one"), start);
        let mut tries = 0;
        for second in 5..65 {
            match cache.look_up(&StatusRequest::Xml, start + seconds(second)) {
                Lookup::Fetch(fetch) => {
                    tries += 1;
                    let waiting = wait(cache.look_up(&StatusRequest::Xml, start + seconds(second)));
                    let stale = told(StatusResult::Stale, "one");
                    assert_eq!(cache.fetched(fetch, None, start + seconds(second)), stale);
                    assert_eq!(*waiting.borrow(), Some(stale));
                }
                turn => assert_told(turn, StatusResult::Stale, "one"),
            }
        }
        assert_eq!(tries, 12, "one in five seconds");
        let last = fetch(cache.look_up(&StatusRequest::Xml, start + CACHE + STALE));
        assert_eq!(cache.fetched(last, None, start + CACHE + STALE), told(StatusResult::Failed, ""));
        assert_told(cache.look_up(&StatusRequest::Xml, start + seconds(66)), StatusResult::Failed, "");
        let back = fetch(cache.look_up(&StatusRequest::Xml, start + seconds(70)));
        cache.fetched(back, answer("two"), start + seconds(70));
        assert_told(cache.look_up(&StatusRequest::Xml, start + seconds(71)), StatusResult::Cached, "two");
    }

    #[test]
    fn a_fetch_whose_task_is_gone_has_failed() {
        let (mut cache, start) = (StatusCache::new(CACHE, STALE), Instant::now());
        let first = fetch(cache.look_up(&StatusRequest::Xml, start));
        let waiting = wait(cache.look_up(&StatusRequest::Xml, start));
        drop(first);
        assert!(waiting.has_changed().is_err(), "who waits is told that nothing comes");
        assert_told(cache.look_up(&StatusRequest::Xml, start), StatusResult::Failed, "");
        assert_told(cache.look_up(&StatusRequest::Xml, start + seconds(4)), StatusResult::Failed, "");
        let again = fetch(cache.look_up(&StatusRequest::Xml, start + CACHE));
        cache.fetched(again, answer("one"), start + CACHE);
    }

    #[test]
    fn different_requests_are_few_and_lead_to_few_fetches() {
        let (mut cache, start) = (StatusCache::new(CACHE, STALE), Instant::now());
        let mut fetches = 0;
        let mut ask_all = |cache: &mut StatusCache, now: Instant| {
            for number in 0..1000 {
                match cache.look_up(&parts(number), now) {
                    Lookup::Fetch(fetch) => {
                        fetches += 1;
                        cache.fetched(fetch, answer("one"), now);
                    }
                    Lookup::Cached(told) => {
                        assert!(matches!(told.result, StatusResult::Refused | StatusResult::Cached))
                    }
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
        // Requests for text have slots of their own.
        for text in [StatusRequest::Xml, StatusRequest::Json] {
            let turn = fetch(cache.look_up(&text, start + seconds(6)));
            cache.fetched(turn, answer("text"), start + seconds(6));
            assert_told(cache.look_up(&text, start + seconds(7)), StatusResult::Cached, "text");
        }
        ask_all(&mut cache, start + seconds(60));
        assert_told(cache.look_up(&StatusRequest::Xml, start + seconds(10)), StatusResult::Cached, "text");
        assert_eq!(cache.slots.len(), MAX_REQUESTS + 2);
    }

    #[test]
    fn the_one_asked_for_the_longest_ago_goes_first_and_none_that_is_fetched() {
        let (mut cache, start) = (StatusCache::new(CACHE, STALE), Instant::now());
        let held = fetch(cache.look_up(&parts(0), start));
        for number in 1..MAX_REQUESTS {
            let turn = fetch(cache.look_up(&parts(number), start));
            cache.fetched(turn, answer("one"), start);
        }
        assert_told(cache.look_up(&parts(1), start + seconds(1)), StatusResult::Cached, "one");
        for number in 0..MAX_REQUESTS - 1 {
            let turn = fetch(cache.look_up(&parts(100 + number), start + CACHE));
            cache.fetched(turn, answer("two"), start + CACHE);
            let there = cache.slots.iter().any(|slot| slot.request == parts(1));
            assert_eq!(there, number < MAX_REQUESTS - 2, "after {number}");
        }
        assert_told(cache.look_up(&parts(999), start + CACHE), StatusResult::Refused, "");
        assert_eq!(cache.fetched(held, answer("held"), start + CACHE), told(StatusResult::Fresh, "held"));
    }
}
