//! The round trips over one edge of the last seconds, beside those of the last minutes. Pure.
//!
//! The judge of edges ([`fleet`](crate::fleet)) decides over minutes, as each change of the list costs players their links. This one only
//! tells, and in seconds.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// The time whose round trips are the present.
pub const PRESENT: Duration = Duration::from_secs(5);
/// Round trips in it before which nothing is known.
pub const LEAST_TRIPS: usize = 3;
/// Round trips that are kept of it.
const MAX_TRIPS: usize = 2048;
/// The time over which the middle of such presents is what is normal.
pub const NORMAL_OVER: Duration = Duration::from_secs(600);
/// The time before which nothing is normal.
pub const NORMAL_FROM: Duration = Duration::from_secs(60);
/// The least by which round trips jump.
pub const LEAST_EXCESS: Duration = Duration::from_millis(30);
/// The share of what is normal, likewise: one of so many.
pub const EXCESS_SHARE: u32 = 2;
/// Seconds in a row for which they must be that much longer.
pub const BEGINS_AFTER: u32 = 3;
/// Seconds in a row for which they must not be half as much longer any more.
pub const OVER_AFTER: u32 = 10;
/// The time after which it is what is normal.
pub const GIVES_UP_AFTER: Duration = Duration::from_secs(600);

/// News of an edge.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum JitterNews {
    /// Its round trips have jumped by so much.
    Began(Duration),
    /// They are what they were, or what they are has become normal. They were longer by so much, in the mean, for that time.
    Over(Duration, Duration),
}

/// The watch over the round trips of one edge, which is told of them once a second.
#[derive(Debug, Default)]
pub struct JitterWatch {
    present: VecDeque<(Instant, Duration)>,
    /// The middles of presents.
    middles: VecDeque<Duration>,
    /// The time of the last of these.
    noted: Option<Instant>,
    excess: Option<Duration>,
    /// Seconds in a row that speak against what is held.
    against: u32,
    jump: Option<Jump>,
}

#[derive(Debug)]
struct Jump {
    from: Instant,
    /// The last second in which they were longer.
    last: Instant,
    /// The normal one before.
    normal: Duration,
    sum: Duration,
    seconds: u32,
}

impl JitterWatch {
    /// Returns by how much its round trips are longer than normal, if that is known.
    #[must_use]
    pub fn excess(&self) -> Option<Duration> {
        self.excess
    }

    /// Takes the round trips of a second.
    pub fn second(&mut self, trips: &[Duration], now: Instant) -> Option<JitterNews> {
        self.present.retain(|(at, _)| now.saturating_duration_since(*at) < PRESENT);
        self.present.extend(trips.iter().map(|trip| (now, *trip)));
        let beyond = self.present.len().saturating_sub(MAX_TRIPS);
        self.present.drain(..beyond);
        let present = (self.present.len() >= LEAST_TRIPS).then(|| middle(self.present.iter().map(|(_, trip)| *trip)));
        let normal = self.jump.as_ref().map(|jump| jump.normal).or_else(|| self.normal());
        self.excess = present.flatten().zip(normal).map(|(present, normal)| present.saturating_sub(normal));
        let limit = normal.map_or(LEAST_EXCESS, |normal| (normal / EXCESS_SHARE).max(LEAST_EXCESS));
        let news = self.judge(limit, now);
        if self.jump.is_none()
            && self.noted.is_none_or(|at| now.saturating_duration_since(at) >= PRESENT)
            && let Some(present) = present.flatten()
        {
            if self.middles.len() >= periods(NORMAL_OVER) {
                self.middles.pop_front();
            }
            self.middles.push_back(present);
            self.noted = Some(now);
        }
        news
    }

    fn judge(&mut self, limit: Duration, now: Instant) -> Option<JitterNews> {
        let Some(jump) = &mut self.jump else {
            self.against = if self.excess.is_some_and(|excess| excess >= limit) { self.against + 1 } else { 0 };
            let (excess, normal) = (self.excess?, self.normal()?);
            if self.against < BEGINS_AFTER {
                return None;
            }
            self.against = 0;
            self.jump = Some(Jump { from: now, last: now, normal, sum: excess, seconds: 1 });
            return Some(JitterNews::Began(excess));
        };
        match self.excess.filter(|excess| *excess >= limit / 2) {
            Some(excess) => {
                (jump.last, jump.sum, jump.seconds) = (now, jump.sum + excess, jump.seconds + 1);
                self.against = 0;
            }
            None => self.against += 1,
        }
        let is_normal_now = now.saturating_duration_since(jump.from) >= GIVES_UP_AFTER;
        if self.against < OVER_AFTER && !is_normal_now {
            return None;
        }
        let lasted = jump.last.saturating_duration_since(jump.from) + Duration::from_secs(BEGINS_AFTER.into());
        let news = JitterNews::Over(jump.sum / jump.seconds, lasted);
        (self.jump, self.against) = (None, 0);
        if is_normal_now {
            self.middles.clear();
        }
        Some(news)
    }

    fn normal(&self) -> Option<Duration> {
        if self.middles.len() < periods(NORMAL_FROM) { None } else { middle(self.middles.iter().copied()) }
    }
}

/// Returns how many presents there are in a time.
fn periods(time: Duration) -> usize {
    time.div_duration_f64(PRESENT) as usize
}

fn middle(trips: impl Iterator<Item = Duration>) -> Option<Duration> {
    let mut trips: Vec<_> = trips.collect();
    trips.sort_unstable();
    trips.get(trips.len() / 2).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Edge {
        watch: JitterWatch,
        now: Instant,
        news: Vec<JitterNews>,
    }

    impl Edge {
        fn new() -> Self {
            Self { watch: JitterWatch::default(), now: Instant::now(), news: Vec::new() }
        }

        /// Has ten players with round trips from so many ms on, for so many seconds.
        fn seconds(&mut self, seconds: u32, from: u64) {
            let trips: Vec<_> = (0..10).map(|player| Duration::from_millis(from + player)).collect();
            (0..seconds).for_each(|_| self.second(&trips));
        }

        fn second(&mut self, trips: &[Duration]) {
            self.now += Duration::from_secs(1);
            self.news.extend(self.watch.second(trips, self.now));
        }
    }

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn a_jump_is_told_when_it_begins_and_with_its_length_when_it_is_over() {
        let mut edge = Edge::new();
        edge.seconds(120, 30);
        assert_eq!((edge.news.as_slice(), edge.watch.excess()), (&[][..], Some(ms(0))));
        edge.seconds(40, 110);
        let Some(JitterNews::Began(excess)) = edge.news.pop() else { panic!("{:?}", edge.news) };
        assert!((ms(30)..=ms(80)).contains(&excess), "{excess:?}");
        assert_eq!(edge.watch.excess(), Some(ms(80)));
        edge.seconds(30, 30);
        let Some(JitterNews::Over(excess, lasted)) = edge.news.pop() else { panic!("{:?}", edge.news) };
        assert!((ms(70)..=ms(80)).contains(&excess), "{excess:?}");
        assert!((ms(38_000)..=ms(44_000)).contains(&lasted), "{lasted:?}");
        edge.seconds(120, 30);
        assert_eq!(edge.news, []);
    }

    #[test]
    fn what_is_short_small_or_of_few_is_none() {
        let mut edge = Edge::new();
        edge.seconds(30, 30);
        edge.seconds(25, 300);
        assert_eq!(edge.news, [], "nothing is normal yet");
        let mut edge = Edge::new();
        edge.seconds(120, 30);
        for _ in 0..20 {
            edge.seconds(2, 200);
            edge.seconds(20, 30);
        }
        edge.seconds(60, 55);
        assert_eq!(edge.news, [], "moments, and a little");
        let mut far = Edge::new();
        far.seconds(120, 200);
        far.seconds(60, 260);
        assert_eq!(far.news, [], "players from afar");
        far.seconds(60, 320);
        assert!(matches!(far.news[..], [JitterNews::Began(_)]));
        let mut one = Edge::new();
        one.seconds(120, 30);
        for second in 0..60 {
            let trips = [ms(400)];
            one.second(if second % 3 == 0 { &trips } else { &[] });
        }
        assert_eq!(one.news, [], "two told something in five seconds");
    }

    #[test]
    fn one_that_stays_becomes_normal_and_one_that_loses_its_players_is_over() {
        let mut edge = Edge::new();
        edge.seconds(120, 30);
        edge.seconds(1200, 110);
        let [JitterNews::Began(_), JitterNews::Over(_, lasted)] = edge.news[..] else { panic!("{:?}", edge.news) };
        assert!(lasted >= GIVES_UP_AFTER);
        edge.seconds(60, 110);
        assert_eq!((edge.news.len(), edge.watch.excess()), (2, Some(ms(0))));
        edge.seconds(20, 300);
        (0..30).for_each(|_| edge.second(&[]));
        assert!(matches!(edge.news[2..], [JitterNews::Began(_), JitterNews::Over(..)]), "{:?}", edge.news);
        assert_eq!(edge.watch.excess(), None);
    }
}
