//! `otproxy probe`: a set-up as a player sees it, from a host that is none of its own.
//!
//! - `list`: the edges, as clients are told them. `edge`: what one of them does for a player. `game`: a world's port there. `hidden`: the core, which must not be
//!   reachable. `verdict`: what follows for players, without I/O. `report`: JSON.

use std::time::Duration;

use tokio::task::JoinSet;

use super::DoctorCheck;
use otproxy_config::HostPort;

mod edge;
mod game;
mod hidden;
mod list;
mod report;
mod verdict;

pub use edge::SeenEdge;
pub use game::{GameError, SeenGame};
pub use hidden::HiddenCore;
pub use list::{EdgeList, ListError, MAX_LIST, read_list};
pub use report::json;

/// The kinds of checks, in the order of the report.
pub const OUTSIDE_CHECKS: [&str; 7] = ["list", "link", "choice", "login", "status", "game", "core"];
/// Pings to each edge.
const PINGS: u32 = 5;
/// The time from one of them to the next.
const INTERVAL: Duration = Duration::from_millis(200);
/// The time limit of a look-up, of a connect, and of an answer.
const STEP: Duration = Duration::from_secs(5);
/// The time limit of all that is tried at one edge.
const EDGE: Duration = Duration::from_secs(20);

/// The pings, and the times, as the document has them.
pub const OUTSIDE_TIMES: (u32, [Duration; 3]) = (PINGS, [INTERVAL, STEP, EDGE]);

/// An edge of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedEdge {
    /// The place of its links.
    pub at: HostPort,
    /// Milliseconds that clients add to the ping.
    pub priority: u32,
}

/// The ports of edges, beside those of links.
#[derive(Debug, Clone, Default)]
pub struct EdgePorts {
    /// For logins without links.
    pub login: u16,
    /// For requests for the status.
    pub status: u16,
    /// For games without links, one for each world that edges forward.
    pub games: Vec<u16>,
}

/// The things to look at.
#[derive(Debug, Clone)]
pub struct Outside {
    /// The edges that clients are told.
    pub list: EdgeList,
    /// Their other ports.
    pub ports: EdgePorts,
    /// The core, if it was told.
    pub core: Option<HiddenCore>,
}

/// The findings.
#[derive(Debug)]
pub struct OutsideReport {
    /// Each edge, in the order of the list.
    pub edges: Vec<SeenEdge>,
    /// The indices of the edges that a client here would play over, the better one first.
    pub chosen: Vec<usize>,
    /// The checks, in the order of [`OUTSIDE_CHECKS`].
    pub checks: Vec<DoctorCheck>,
}

/// Looks at all of it at once.
pub async fn examine_outside(outside: Outside) -> OutsideReport {
    let mut looking = JoinSet::new();
    for (index, listed) in outside.list.edges.iter().enumerate() {
        let (listed, ports) = (listed.clone(), outside.ports.clone());
        looking.spawn(async move { (index, SeenEdge::look(listed, ports).await) });
    }
    let core = outside.core.clone().map(|core| tokio::spawn(core.examine()));
    let mut edges = Vec::new();
    while let Some(seen) = looking.join_next().await {
        // A look that panicked is a defect: the edge is missing then.
        edges.extend(seen);
    }
    edges.sort_by_key(|(index, _)| *index);
    let edges: Vec<_> = edges.into_iter().map(|(_, edge)| edge).collect();
    let chosen = verdict::chosen(&edges);
    let mut checks = verdict::of(&outside, &edges, &chosen);
    if let Some(core) = core {
        checks.extend(core.await.ok());
    }
    checks.sort_by_key(|check| OUTSIDE_CHECKS.iter().position(|kind| *kind == check.check));
    OutsideReport { edges, chosen, checks }
}
