//! Answers that an edge keeps. Pure: no I/O, and no clock of its own.
//!
//! Only paths whose answers the core lets be kept have a place, so nobody fills the places with paths of their own. An answer
//! that is no longer fresh is given again while one request asks for a new one, and for as long as the core cannot be reached.

use std::collections::HashMap;
use std::time::{Duration, Instant};

/// Answers kept at once; more than a core has.
pub const MAX_KEPT: usize = 64;
/// The longest time for which an answer counts as fresh, whatever it says: the core is in the next room.
pub const FRESHEST: Duration = Duration::from_secs(2);
/// The time for which an answer is given again while there is no newer one.
pub const STALE: Duration = Duration::from_secs(24 * 60 * 60);
/// The time until another request may ask for a new answer, after one has.
pub const ASK_AGAIN: Duration = Duration::from_secs(5);

/// The answers kept, by path.
#[derive(Debug)]
pub struct KeptAnswers<A>(HashMap<String, Kept<A>>);

#[derive(Debug)]
struct Kept<A> {
    answer: A,
    /// The time until which it is fresh.
    fresh: Instant,
    /// The time until which it is given.
    given: Instant,
    /// The time from which a request may ask for a new one.
    ask: Instant,
    /// The time of the last request for it.
    used: Instant,
}

/// The knowledge about a path.
#[derive(Debug, PartialEq, Eq)]
pub enum Known<A> {
    /// An answer that is fresh.
    Fresh(A),
    /// An answer of before. `ask` is true for the one request that is to ask for a new one.
    Stale {
        /// The answer.
        answer: A,
        /// True if a new one is to be asked for.
        ask: bool,
    },
    /// Nothing.
    Nothing,
}

impl<A> Default for KeptAnswers<A> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<A: Clone> KeptAnswers<A> {
    /// Looks up a path.
    pub fn look_up(&mut self, path: &str, now: Instant) -> Known<A> {
        let Some(kept) = self.0.get_mut(path).filter(|kept| now < kept.given) else { return Known::Nothing };
        kept.used = now;
        if now < kept.fresh {
            return Known::Fresh(kept.answer.clone());
        }
        let ask = now >= kept.ask;
        if ask {
            kept.ask = now + ASK_AGAIN;
        }
        Known::Stale { answer: kept.answer.clone(), ask }
    }

    /// Keeps an answer, which is fresh for so long; if there is no place, instead of the one that was used the longest ago.
    pub fn keep(&mut self, path: &str, answer: A, fresh_for: Duration, now: Instant) {
        if self.0.len() >= MAX_KEPT && !self.0.contains_key(path) {
            let oldest = self.0.iter().min_by_key(|(_, kept)| kept.used).map(|(path, _)| path.clone());
            oldest.iter().for_each(|oldest| drop(self.0.remove(oldest)));
        }
        let fresh = now + fresh_for.min(FRESHEST);
        let kept = Kept { answer, fresh, given: fresh + STALE, ask: fresh, used: now };
        self.0.insert(path.to_owned(), kept);
    }

    /// Forgets an answer that is no more.
    pub fn forget(&mut self, path: &str) {
        self.0.remove(path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn one_request_asks_anew_and_all_have_an_answer() {
        let (mut kept, start) = (KeptAnswers::default(), Instant::now());
        assert_eq!(kept.look_up("/a", start), Known::Nothing);
        kept.keep("/a", 1, 60 * SECOND, start);
        assert_eq!(kept.look_up("/a", start + SECOND), Known::Fresh(1));
        assert_eq!(kept.look_up("/b", start), Known::Nothing);
        let late = start + FRESHEST;
        assert_eq!(kept.look_up("/a", late), Known::Stale { answer: 1, ask: true });
        assert_eq!(kept.look_up("/a", late), Known::Stale { answer: 1, ask: false });
        kept.keep("/a", 2, 2 * SECOND, late);
        assert_eq!(kept.look_up("/a", late + SECOND), Known::Fresh(2));
        assert_eq!(kept.look_up("/a", late + 2 * SECOND), Known::Stale { answer: 2, ask: true });
    }

    #[test]
    fn while_there_is_no_newer_one_it_is_given_and_asked_for_at_a_pace() {
        let (mut kept, start) = (KeptAnswers::default(), Instant::now());
        kept.keep("/a", 1, FRESHEST, start);
        let asked = (0..60 * 60).filter(|second| {
            let known = kept.look_up("/a", start + FRESHEST + *second * SECOND);
            let Known::Stale { answer: 1, ask } = known else { panic!("{known:?}") };
            ask
        });
        assert_eq!(asked.count(), 60 * 60 / 5);
        assert_eq!(kept.look_up("/a", start + FRESHEST + STALE), Known::Nothing);
        kept.keep("/a", 1, FRESHEST, start);
        kept.forget("/a");
        assert_eq!(kept.look_up("/a", start), Known::Nothing);
    }

    #[test]
    fn places_are_few_and_the_one_used_the_longest_ago_goes_first() {
        let (mut kept, start) = (KeptAnswers::default(), Instant::now());
        for number in 0..MAX_KEPT {
            kept.keep(&number.to_string(), number, FRESHEST, start);
        }
        kept.look_up("0", start + SECOND);
        for number in 0..MAX_KEPT - 1 {
            kept.keep(&format!("new {number}"), number, FRESHEST, start + 2 * SECOND);
        }
        assert_eq!(kept.0.len(), MAX_KEPT);
        assert_eq!(kept.look_up("0", start + SECOND), Known::Fresh(0));
        assert_eq!(kept.look_up("1", start + SECOND), Known::Nothing);
    }
}
