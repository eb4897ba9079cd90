//! The sampler: once a second it makes a row of the history from what everybody counts, and events of what has changed in it. So
//! nothing of either is on the way of a packet.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::task::spawn_blocking;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tracing::{info, warn};

use self::changes::Changes;
use crate::admission::ProcessAdmission;
use crate::events::EventLog;
use crate::history::{EDGE_FIGURES, EdgeFigure, Figure, History, Row, WORLD_FIGURES, WorldFigure};
use crate::lag::{EdgeSecond, EdgesWatch, Host};
use crate::metrics::{Metrics, sums, total};
use crate::relay::{EdgeSample, OTHER_EDGE, RelaySample, RelayShared, WorldSample};

mod changes;

/// The time between samples.
const EVERY: Duration = Duration::from_secs(1);
/// The time that workers have to tell their figures. A row without them is better than none.
const WITHIN: Duration = Duration::from_millis(800);

/// The sampler of a role.
pub(super) struct Sampler {
    /// All metrics of the process.
    pub metrics: Vec<Arc<Metrics>>,
    /// The admission that all listeners share.
    pub process: Arc<ProcessAdmission>,
    /// The relay of the core.
    pub relay: Option<Arc<RelayShared>>,
    /// Counters of events outside of the workers, among those.
    pub own: Arc<Metrics>,
    /// The delays of all threads.
    pub host: Arc<Host>,
    /// The place of what has happened.
    pub events: Arc<EventLog>,
    /// The place of the figures.
    pub history: Arc<History>,
}

/// Counts at the last sample.
#[derive(Debug, Default)]
struct Counts {
    accepted: f64,
    refused: f64,
    bytes: BTreeMap<String, f64>,
    stalls: BTreeMap<String, f64>,
    relay: RelaySample,
}

impl Sampler {
    /// Samples for ever.
    pub async fn run(self) {
        let mut ticks = interval(EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        // The first one is now, with nothing to compare to.
        ticks.tick().await;
        let (mut counts, mut changes, mut edges) = (Counts::default(), Changes::default(), EdgesWatch::default());
        self.sample(&mut counts, &mut edges).await;
        loop {
            ticks.tick().await;
            // Whatever workers take to answer, it is the row of the second that ends now.
            let now = Instant::now();
            let row = self.sample(&mut counts, &mut edges).await;
            self.history.push(&row, now);
            changes.look(&self.metrics, &self.events, (now, unix_seconds()));
        }
    }

    /// Makes a row, and takes note of the counts.
    async fn sample(&self, before: &mut Counts, watch: &mut EdgesWatch) -> Row {
        let (all, mut row) = (&self.metrics, Row::default());
        let grown = |before: &mut f64, now: f64| (now - std::mem::replace(before, now)).max(0.0);
        row.set(Figure::Connections, self.process.connections() as f64);
        row.set(Figure::Accepted, grown(&mut before.accepted, total(all, |metrics| &metrics.connections_accepted)));
        let refused = total(all, |metrics| &metrics.connections_rejected);
        let refused = refused + total(all, |metrics| &metrics.relay_refused);
        row.set(Figure::Refused, grown(&mut before.refused, refused));
        let bytes = sums(all, |metrics| &metrics.bytes, "direction");
        for (figure, direction) in [(Figure::BytesIn, "in"), (Figure::BytesOut, "out")] {
            let before = before.bytes.entry(direction.to_owned()).or_default();
            row.set(figure, grown(before, bytes.get(direction).copied().unwrap_or_default()));
        }
        row.set(Figure::Trunks, total(all, |metrics| &metrics.tunnel_trunks));
        row.set(Figure::Streams, total(all, |metrics| &metrics.tunnel_streams));
        self.add_host(&mut row).await;
        if let Some(relay) = &self.relay {
            row.set(Figure::UnackedBytes, total(all, |metrics| &metrics.relay_unacked_bytes));
            if let Ok(mut now) = timeout(WITHIN, relay.sample()).await {
                self.add_known(&mut now);
                add_relay(&mut row, &before.relay, &now);
                self.watch_edges(&mut row, &before.relay, &now, watch);
                before.relay = now;
            }
            let stalls = sums(all, |metrics| &metrics.game_stall, "port");
            add_stalls(&mut row, &std::mem::replace(&mut before.stalls, stalls.clone()), &stalls);
        }
        row
    }

    /// Adds edges and worlds of the file over which nobody has played yet: they are there, at zero.
    fn add_known(&self, sample: &mut RelaySample) {
        for edge in self.process.edges().snapshot() {
            sample.edges.entry(edge.name).or_default();
        }
        let worlds = sums(&self.metrics, |metrics| &metrics.game_server_up, "port");
        for port in worlds.keys().filter_map(|port| port.parse().ok()) {
            sample.worlds.entry(port).or_default();
        }
    }

    async fn add_host(&self, row: &mut Row) {
        row.set(Figure::WorkerDelay, self.host.take_longest().as_secs_f64());
        let host = Arc::clone(&self.host);
        // If it fails, that is not known.
        let share = spawn_blocking(move || host.look()).await.unwrap_or_default();
        row.set(Figure::StealShare, share.steal.unwrap_or(f64::NAN));
        row.set(Figure::RunQueue, share.run_queue.map_or(f64::NAN, |waited| waited.as_secs_f64()));
    }

    /// Looks for edges whose round trips jump.
    fn watch_edges(&self, row: &mut Row, before: &RelaySample, now: &RelaySample, watch: &mut EdgesWatch) {
        let edges = now.edges.iter().filter(|(name, _)| ***name != *OTHER_EDGE);
        let second = |(name, edge): (&Arc<str>, &EdgeSample)| EdgeSecond {
            name: Arc::clone(name),
            round_trips: edge.round_trips.clone(),
            first: edge.first.saturating_sub(before.edges.get(name).map_or(0, |before| before.first)),
        };
        for happening in watch.second(&edges.map(second).collect::<Vec<_>>(), Instant::now()) {
            if happening.is_over() {
                info!("{happening}");
            } else {
                warn!("{happening}");
            }
            self.events.emit(happening);
        }
        for (name, figures) in &mut row.edges {
            let labels = [&**name];
            match watch.excess(name).map(|excess| excess.as_secs_f64()) {
                Some(excess) => {
                    self.own.edge_jitter.with_label_values(&labels).set(excess);
                    set(figures, EdgeFigure::Jitter as usize, excess);
                }
                // Series that are gone already need no removal.
                None => drop(self.own.edge_jitter.remove_label_values(&labels)),
            }
        }
        for gone in before.edges.keys().filter(|name| !now.edges.contains_key(*name)) {
            let _ = self.own.edge_jitter.remove_label_values(&[&**gone]);
        }
    }
}

/// Sets the figures of stalls, from the sums of their seconds by world.
fn add_stalls(row: &mut Row, before: &BTreeMap<String, f64>, now: &BTreeMap<String, f64>) {
    let mut all = 0.0;
    for (port, seconds) in now {
        let new = (seconds - before.get(port).copied().unwrap_or_default()).max(0.0);
        all += new;
        if let Some((_, figures)) = row.worlds.iter_mut().find(|(world, _)| world.to_string() == *port) {
            set(figures, WorldFigure::Stall as usize, new);
        }
    }
    row.set(Figure::GameStall, all);
}

fn set(figures: &mut [f32], place: usize, value: f64) {
    if let Some(figure) = figures.get_mut(place) {
        *figure = value as f32;
    }
}

/// Sets the figures of links and sessions.
fn add_relay(row: &mut Row, before: &RelaySample, now: &RelaySample) {
    let (no_edge, no_world) = (EdgeSample::default(), WorldSample::default());
    let grown = |now: u64, before: u64| now.saturating_sub(before) as f64;
    let edges: Vec<_> =
        now.edges.iter().map(|(name, edge)| (name, edge, before.edges.get(name).unwrap_or(&no_edge))).collect();
    let firsts: f64 = edges.iter().map(|(_, now, before)| grown(now.first, before.first)).sum();
    let (mut links, mut lost, mut all_trips) = (0.0, 0.0, Vec::new());
    for (name, now, before) in edges {
        let lost_here = grown(now.lost, before.lost);
        let mut trips = now.round_trips.clone();
        trips.sort_unstable();
        (links, lost) = (links + now.links as f64, lost + lost_here);
        all_trips.extend_from_slice(&trips);
        // Links that come over none of the edges of the file are no edge's.
        if **name != *OTHER_EDGE {
            let mut figures = [f32::NAN; EDGE_FIGURES];
            let mut set = |figure: EdgeFigure, value| set(&mut figures, figure as usize, value);
            set(EdgeFigure::Links, now.links as f64);
            set(EdgeFigure::RoundTripP50, quantile(&trips, 50));
            set(EdgeFigure::RoundTripP95, quantile(&trips, 95));
            set(EdgeFigure::LostLinks, lost_here);
            let share = if firsts > 0.0 { grown(now.first, before.first) / firsts } else { f64::NAN };
            set(EdgeFigure::FirstShare, share);
            row.edges.push((Arc::clone(name), figures));
        }
    }
    all_trips.sort_unstable();
    row.set(Figure::Links, links);
    row.set(Figure::LostLinks, lost);
    row.set(Figure::RoundTripP50, quantile(&all_trips, 50));
    row.set(Figure::RoundTripP95, quantile(&all_trips, 95));
    let (mut sessions, mut packets_in, mut packets_out) = (0, 0.0, 0.0);
    for (port, now) in &now.worlds {
        let before = before.worlds.get(port).unwrap_or(&no_world);
        let (arrived, left) = (grown(now.packets_in, before.packets_in), grown(now.packets_out, before.packets_out));
        (sessions, packets_in, packets_out) = (sessions + now.sessions, packets_in + arrived, packets_out + left);
        let mut figures = [f32::NAN; WORLD_FIGURES];
        let mut set = |figure: WorldFigure, value| set(&mut figures, figure as usize, value);
        set(WorldFigure::Sessions, now.sessions as f64);
        set(WorldFigure::PacketsIn, arrived);
        set(WorldFigure::PacketsOut, left);
        row.worlds.push((*port, figures));
    }
    row.set(Figure::Sessions, sessions as f64);
    row.set(Figure::PacketsIn, packets_in);
    row.set(Figure::PacketsOut, packets_out);
}

/// Returns the one of these in order that so many of a hundred do not exceed, in seconds.
fn quantile(sorted: &[Duration], percent: usize) -> f64 {
    let place = (sorted.len() * percent).div_ceil(100).saturating_sub(1);
    sorted.get(place).map_or(f64::NAN, Duration::as_secs_f64)
}

fn unix_seconds() -> i64 {
    let passed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(passed.as_secs()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_has_what_grew_since_the_last_sample() {
        let edge = |links, lost, first, trips: &[u64]| EdgeSample {
            links,
            lost,
            first,
            round_trips: trips.iter().map(|ms| Duration::from_millis(*ms)).collect(),
        };
        let sample = |waw1: EdgeSample, fra1: EdgeSample, other: EdgeSample, packets| RelaySample {
            edges: [("waw1".into(), waw1), ("fra1".into(), fra1), (OTHER_EDGE.into(), other)].into(),
            worlds: [(7172, WorldSample { sessions: 5, packets_in: packets, packets_out: 2 * packets })].into(),
        };
        let before = sample(edge(9, 1, 100, &[1]), edge(9, 0, 100, &[]), edge(0, 0, 0, &[]), 100);
        let now = sample(edge(6, 4, 130, &[30, 10, 20]), edge(5, 0, 110, &[]), edge(1, 0, 0, &[500]), 150);
        let mut row = Row::default();
        add_relay(&mut row, &before, &now);
        let of = |figure: Figure| row.process[figure as usize];
        assert_eq!([Figure::Links, Figure::LostLinks, Figure::Sessions].map(of), [12.0, 3.0, 5.0]);
        assert_eq!([Figure::PacketsIn, Figure::PacketsOut].map(of), [50.0, 100.0]);
        assert_eq!([Figure::RoundTripP50, Figure::RoundTripP95].map(of), [0.02, 0.5]);
        assert_eq!(row.edges.len(), 2, "`other` is no edge");
        let waw1 = row.edges.iter().find(|(name, _)| **name == *"waw1").unwrap().1;
        let of = |figure: EdgeFigure| waw1[figure as usize];
        assert_eq!([EdgeFigure::Links, EdgeFigure::LostLinks, EdgeFigure::FirstShare].map(of), [6.0, 3.0, 0.75]);
        assert_eq!([EdgeFigure::RoundTripP50, EdgeFigure::RoundTripP95].map(of), [0.02, 0.03]);
        assert_eq!((row.worlds[0].0, &row.worlds[0].1[..3]), (7172, &[5.0, 50.0, 100.0][..]));
        let stalls = |seconds| [("7172".to_owned(), seconds), ("7173".to_owned(), 1.0)].into();
        add_stalls(&mut row, &stalls(1.0), &stalls(2.5));
        assert_eq!((row.process[Figure::GameStall as usize], row.worlds[0].1[3]), (1.5, 1.5));
        let mut again = Row::default();
        add_relay(&mut again, &now, &sample(edge(0, 0, 0, &[]), edge(0, 0, 0, &[]), edge(0, 0, 0, &[]), 0));
        assert_eq!(again.process[Figure::PacketsIn as usize], 0.0, "it began anew");
        assert!(again.edges[0].1[EdgeFigure::FirstShare as usize].is_nan());
    }
}
