//! The data that a demo hands out to be shown.

use std::net::SocketAddr;
use std::time::Duration;

use super::seat::DemoPlayer;
use super::topology::DemoEdge;
use super::{DemoOptions, DemoReport};

/// A display of a demo.
pub trait Display {
    /// Shows what will happen. `admin` is the address of the core's metrics.
    fn begin(&mut self, options: DemoOptions, admin: Option<SocketAddr>);

    /// Returns how long a moment is to be shown.
    fn every(&self) -> Duration;

    /// Shows a moment.
    fn show(&mut self, options: DemoOptions, moment: &Moment);
}

/// A moment of a demo.
#[derive(Debug, Clone)]
pub struct Moment {
    /// The time since the players began, at most the whole.
    pub elapsed: Duration,
    /// The number of times that an edge was cut.
    pub cuts: u64,
    /// All edges.
    pub edges: Vec<EdgeNow>,
    /// The counts of all packets so far.
    pub figures: DemoReport,
}

/// One edge, over all players.
#[derive(Debug, Clone)]
pub struct EdgeNow {
    /// Its name.
    pub name: String,
    /// It is not cut.
    pub up: bool,
    /// Links that are ready.
    pub links: usize,
    /// Packets that it brought first.
    pub first: u64,
    /// Packets that another had brought before.
    pub duplicates: u64,
    /// The mean round trip of links that are ready.
    pub rtt: Option<Duration>,
}

impl EdgeNow {
    /// Sums what the players see of the edge that is path `index` of each.
    pub(super) fn new(edge: &DemoEdge, index: usize, seats: &[DemoPlayer]) -> Self {
        let paths: Vec<_> = seats.iter().map(|seat| seat.path(index)).collect();
        let ready = || paths.iter().filter(|path| path.ready);
        let rtts: Vec<_> = ready().filter_map(|path| path.rtt).collect();
        Self {
            name: edge.name().to_owned(),
            up: edge.is_up(),
            links: ready().count(),
            first: paths.iter().map(|path| path.first).sum(),
            duplicates: paths.iter().map(|path| path.duplicates).sum(),
            rtt: u32::try_from(rtts.len()).ok().and_then(|count| rtts.iter().sum::<Duration>().checked_div(count)),
        }
    }
}
