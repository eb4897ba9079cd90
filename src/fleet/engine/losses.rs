//! The links that an edge loses while the same players' other links live, as one under an attack does.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// The time over which lost links are summed.
pub const WINDOW: Duration = Duration::from_secs(30);
/// Links lost in it from which on an edge is hit.
pub const LOST_LEAST: u64 = 3;
/// The share of the links that there were, likewise: one of so many.
pub const LOST_SHARE: u64 = 5;
/// The time without such losses after which it is hit no more.
pub const QUIET: Duration = Duration::from_secs(120);
/// Rounds that are remembered, whatever their times.
const MOST_ROUNDS: usize = 64;

/// The links lost over an edge of late.
#[derive(Debug, Default)]
pub(super) struct Losses {
    /// Each round's end, its links and those lost in it.
    rounds: VecDeque<(Instant, u64, u64)>,
    /// The last time that many were lost.
    many: Option<Instant>,
}

impl Losses {
    /// Takes a round.
    pub fn add(&mut self, links: u64, lost: u64, now: Instant) {
        self.rounds.retain(|(at, ..)| now.saturating_duration_since(*at) < WINDOW);
        if self.rounds.len() == MOST_ROUNDS {
            self.rounds.pop_front();
        }
        self.rounds.push_back((now, links, lost));
        let lost: u64 = self.rounds.iter().map(|(_, _, lost)| lost).fold(0, |sum, lost| sum.saturating_add(*lost));
        let there_were = self.rounds.iter().map(|(_, links, lost)| links.saturating_add(*lost)).max().unwrap_or(0);
        if lost >= LOST_LEAST && lost.saturating_mul(LOST_SHARE) >= there_were {
            self.many = Some(now);
        }
    }

    /// Returns whether many are lost now.
    pub fn are_many(&self, now: Instant) -> bool {
        self.many == Some(now)
    }

    /// Returns whether it has been quiet for long enough.
    pub fn are_over(&self, now: Instant) -> bool {
        self.many.is_none_or(|at| now.saturating_duration_since(at) >= QUIET)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROUND: Duration = Duration::from_secs(3);

    #[test]
    fn many_are_a_share_of_those_that_there_were_and_more_than_two() {
        let start = Instant::now();
        let many = |rounds: &[(u64, u64)]| {
            let mut losses = Losses::default();
            let mut now = start;
            for (links, lost) in rounds {
                now += ROUND;
                losses.add(*links, *lost, now);
            }
            losses.are_many(now)
        };
        assert!(!many(&[(4, 0), (2, 2)]), "two");
        assert!(many(&[(4, 0), (1, 3)]));
        assert!(!many(&[(100, 0), (85, 15)]) && many(&[(100, 0), (80, 20)]));
        assert!(many(&[(100, 0), (93, 7), (86, 7), (80, 6)]), "over some rounds");
        assert!(!many(&[(1000, 10); 100]), "a tenth in half a minute, which come back");
    }

    #[test]
    fn it_is_over_after_a_time_of_quiet() {
        let (mut losses, start) = (Losses::default(), Instant::now());
        assert!(losses.are_over(start));
        losses.add(0, 9, start);
        losses.add(10, 0, start + WINDOW - ROUND);
        assert!(losses.are_many(start + WINDOW - ROUND), "it is within the window");
        losses.add(10, 0, start + WINDOW);
        assert!(!losses.are_many(start + WINDOW) && !losses.are_over(start + QUIET));
        assert!(losses.are_over(start + WINDOW + QUIET));
    }
}
