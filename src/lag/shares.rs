//! The share of packets that come over each edge first, over time: players move without knowing it, as the faster way wins. Pure.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// Seconds over which a share is known.
pub const REMEMBERED: usize = 60;
/// The least that an edge must gain for players to have moved to it.
pub const GAINED: f64 = 0.1;

/// The packets of each edge that came over it first.
pub type Firsts = BTreeMap<Arc<str>, u64>;

/// The shares of the last minute.
#[derive(Debug, Default)]
pub struct FirstShares {
    seconds: VecDeque<Firsts>,
}

/// The shares before something began, and what came first since.
#[derive(Debug)]
pub struct ShareChange {
    before: BTreeMap<Arc<str>, f64>,
    since: Firsts,
}

impl FirstShares {
    /// Takes the packets of a second.
    pub fn second(&mut self, firsts: Firsts) {
        if self.seconds.len() >= REMEMBERED {
            self.seconds.pop_front();
        }
        self.seconds.push_back(firsts);
    }

    /// Returns the shares up to now, to be compared with those that follow.
    #[must_use]
    pub fn change(&self) -> ShareChange {
        let mut sums = Firsts::new();
        self.seconds.iter().for_each(|second| add(&mut sums, second));
        ShareChange { before: shares(&sums), since: Firsts::new() }
    }
}

impl ShareChange {
    /// Takes the packets of a second.
    pub fn second(&mut self, firsts: &Firsts) {
        add(&mut self.since, firsts);
    }

    /// Returns the edge other than this one that has gained the most, if one has gained much.
    #[must_use]
    pub fn moved_to(&self, edge: &str) -> Option<Arc<str>> {
        let now = shares(&self.since);
        let gains = now.iter().filter(|(name, _)| ***name != *edge).map(|(name, share)| {
            let before = self.before.get(name).copied().unwrap_or_default();
            (name, share - before)
        });
        let most = gains.max_by(|(_, one), (_, other)| one.total_cmp(other));
        most.filter(|(_, gain)| *gain >= GAINED).map(|(name, _)| Arc::clone(name))
    }
}

fn add(sums: &mut Firsts, firsts: &Firsts) {
    for (edge, first) in firsts {
        *sums.entry(Arc::clone(edge)).or_default() += first;
    }
}

fn shares(sums: &Firsts) -> BTreeMap<Arc<str>, f64> {
    let all: u64 = sums.values().sum();
    sums.iter().map(|(edge, first)| (Arc::clone(edge), *first as f64 / all.max(1) as f64)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn firsts(waw1: u64, fra1: u64, lon1: u64) -> Firsts {
        [("waw1".into(), waw1), ("fra1".into(), fra1), ("lon1".into(), lon1)].into()
    }

    #[test]
    fn players_have_moved_to_the_edge_that_gained_the_most() {
        let mut shares = FirstShares::default();
        (0..2 * REMEMBERED).for_each(|_| shares.second(firsts(80, 10, 10)));
        let moved = |after: Firsts| {
            let mut change = shares.change();
            (0..10).for_each(|_| change.second(&after));
            change.moved_to("waw1")
        };
        assert_eq!(moved(firsts(10, 70, 20)).as_deref(), Some("fra1"));
        assert_eq!(moved(firsts(75, 13, 12)), None, "a little");
        assert_eq!(moved(firsts(100, 0, 0)), None);
        assert_eq!(moved(Firsts::new()), None, "nobody plays");
        assert_eq!(FirstShares::default().change().moved_to("waw1"), None);
    }
}
