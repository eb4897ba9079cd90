//! The edges whose round trips jump. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::jitter::{JitterNews, JitterWatch};
use super::shares::{FirstShares, Firsts, ShareChange};
use crate::events::Happening;

/// An edge in one second.
#[derive(Debug, Clone)]
pub struct EdgeSecond {
    /// Its name.
    pub name: Arc<str>,
    /// The round trips that players told.
    pub round_trips: Vec<Duration>,
    /// Packets from players that came over it first.
    pub first: u64,
}

/// The watch over all edges.
#[derive(Debug, Default)]
pub struct EdgesWatch {
    edges: BTreeMap<Arc<str>, Watched>,
    shares: FirstShares,
}

#[derive(Debug, Default)]
struct Watched {
    jitter: JitterWatch,
    /// While its round trips are longer.
    change: Option<ShareChange>,
}

impl EdgesWatch {
    /// Takes a second of all edges that there are. Returns what has happened.
    pub fn second(&mut self, edges: &[EdgeSecond], now: Instant) -> Vec<Happening> {
        self.edges.retain(|name, _| edges.iter().any(|edge| edge.name == *name));
        let firsts: Firsts = edges.iter().map(|edge| (Arc::clone(&edge.name), edge.first)).collect();
        let mut happenings = Vec::new();
        for EdgeSecond { name, round_trips, .. } in edges {
            let watched = self.edges.entry(Arc::clone(name)).or_default();
            let news = watched.jitter.second(round_trips, now);
            watched.change.iter_mut().for_each(|change| change.second(&firsts));
            let (excess, seconds, moved_to) = match news {
                Some(JitterNews::Began(excess)) => {
                    watched.change = Some(self.shares.change());
                    (excess, None, None)
                }
                Some(JitterNews::Over(excess, lasted)) => {
                    let moved_to = watched.change.take().and_then(|change| change.moved_to(name));
                    (excess, Some(lasted.as_secs_f64()), moved_to)
                }
                None => continue,
            };
            let (edge, excess) = (Arc::clone(name), excess.as_secs_f64());
            happenings.push(Happening::EdgeJitter { edge, excess, seconds, moved_to });
        }
        self.shares.second(firsts);
        happenings
    }

    /// Returns by how much the round trips of an edge are longer than normal, if that is known.
    #[must_use]
    pub fn excess(&self, edge: &str) -> Option<Duration> {
        self.edges.get(edge)?.jitter.excess()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_told_where_players_went_meanwhile() {
        let (mut watch, mut now) = (EdgesWatch::default(), Instant::now());
        let mut seconds = |count: u32, waw1: (u64, u64), fra1: (u64, u64)| {
            let edge = |name: &str, (ms, first): (u64, u64)| EdgeSecond {
                name: name.into(),
                round_trips: vec![Duration::from_millis(ms); 10],
                first,
            };
            let mut told = Vec::new();
            for _ in 0..count {
                now += Duration::from_secs(1);
                told.extend(watch.second(&[edge("waw1", waw1), edge("fra1", fra1)], now));
            }
            told.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(seconds(120, (30, 90), (50, 10)), [""; 0]);
        let began = seconds(40, (110, 5), (50, 95));
        assert!(began.len() == 1 && began[0].starts_with("edge waw1: +80 ms since"), "{began:?}");
        let over = seconds(30, (30, 90), (50, 10));
        assert!(over.len() == 1 && over[0].starts_with("edge waw1: +80 ms for 4"), "{over:?}");
        assert!(over[0].ends_with("players moved to fra1"), "{over:?}");
        assert_eq!((watch.excess("waw1"), watch.excess("gone")), (Some(Duration::ZERO), None));
    }
}
