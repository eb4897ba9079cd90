//! Figures of links and sessions as they are at one moment, for the history of the process.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::{Relay, RelayShared};

/// Figures of one edge.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EdgeSample {
    /// Links open.
    pub links: u64,
    /// Players' links that broke while their clients lived on over others, since the start.
    pub lost: u64,
    /// Packets from players that came over it first, since the start.
    pub first: u64,
    /// Round trips that players told since the last sample, the last ones of many.
    pub round_trips: Vec<Duration>,
}

/// Figures of one world.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct WorldSample {
    /// Sessions alive.
    pub sessions: u64,
    /// Packets to the game server, since the start.
    pub packets_in: u64,
    /// Packets to players, likewise.
    pub packets_out: u64,
}

/// Figures of all links and sessions.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RelaySample {
    /// Figures of each edge, `other` included.
    pub edges: BTreeMap<Arc<str>, EdgeSample>,
    /// Figures of each world, by its port.
    pub worlds: BTreeMap<u16, WorldSample>,
}

impl RelaySample {
    /// Adds that of another worker.
    fn add(&mut self, other: Self) {
        for (edge, EdgeSample { links, lost, first, round_trips }) in other.edges {
            let sum = self.edges.entry(edge).or_default();
            sum.links += links;
            sum.lost += lost;
            sum.first += first;
            sum.round_trips.extend(round_trips);
        }
        for (world, WorldSample { sessions, packets_in, packets_out }) in other.worlds {
            let sum = self.worlds.entry(world).or_default();
            sum.sessions += sessions;
            sum.packets_in += packets_in;
            sum.packets_out += packets_out;
        }
    }
}

impl Relay {
    fn sample(&self) -> RelaySample {
        let count = |gauge: i64| u64::try_from(gauge).unwrap_or_default();
        let (edges, ports) = (self.edges.borrow(), self.ports.borrow());
        let edge = |edge: &std::rc::Rc<super::EdgeMetrics>| {
            let (lost, round_trips) = edge.signs.sample();
            let sample = EdgeSample { links: count(edge.links.get()), lost, first: edge.in_first.get(), round_trips };
            (Arc::clone(&edge.name), sample)
        };
        let world = |(port, world): (&u16, &std::rc::Rc<super::PortMetrics>)| {
            let sessions = count(world.sessions_active.get());
            let (packets_in, packets_out) = (world.packets_in.get(), world.packets_out.get());
            (*port, WorldSample { sessions, packets_in, packets_out })
        };
        RelaySample { edges: edges.values().map(edge).collect(), worlds: ports.iter().map(world).collect() }
    }
}

impl RelayShared {
    /// Returns the figures of all workers together. To be called by one task alone, as round trips are taken away.
    pub async fn sample(&self) -> RelaySample {
        let mut sum = RelaySample::default();
        self.ask(Relay::sample).await.into_iter().for_each(|sample| sum.add(sample));
        sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_are_added_up() {
        let of = |links, trip| {
            let edge = EdgeSample { links, lost: 1, first: 2, round_trips: vec![Duration::from_millis(trip)] };
            let world = WorldSample { sessions: links, packets_in: 5, packets_out: 6 };
            RelaySample { edges: [("waw1".into(), edge)].into(), worlds: [(7172, world)].into() }
        };
        let mut sum = of(1, 10);
        sum.add(of(2, 20));
        sum.add(RelaySample::default());
        let round_trips = [10, 20].map(Duration::from_millis).to_vec();
        assert_eq!(sum.edges["waw1"], EdgeSample { links: 3, lost: 2, first: 4, round_trips });
        assert_eq!(sum.worlds[&7172], WorldSample { sessions: 3, packets_in: 10, packets_out: 12 });
    }
}
