//! The tunnel between an edge and the core: TLS with certificates on both sides, in trunks that carry many streams.
//!
//! Either side may make the connections. The edge says its hello first, and the core answers with its own, which tells the edge
//! that it is accepted. From then on the trunk belongs to a worker on each side, and the edge opens streams on it: `edge_trunks`
//! and `core_trunks` carry them, over [`Trunk`](otproxy_net::Trunk). Over streams of its own the core asks its edges: `errands`.
//!
//! Handshakes and hellos run on a thread of their own, so that they cost players nothing. The protocol is specified in
//! `docs/tunnel.md`.

mod acceptor;
mod client;
mod core_trunks;
mod edge_trunks;
mod errands;
mod greeting;
mod handshake;
mod maintainer;
mod metrics;
mod places;
mod refusal;
mod server;
mod tether;
mod unauthenticated;

use std::time::Duration;

pub use crate::certs::certificate::DAYS_LEFT;
pub use acceptor::NAME;
pub use client::TunnelClient;
pub use core_trunks::{NewCoreTrunk, NewCoreTrunks, carry_core_trunks};
pub use edge_trunks::{EdgeTrunks, NewEdgeTrunks, TrunkPool};
pub use errands::{ERRANDS, EdgeErrands, ErrandsTaken, ErrandsTo, WAITING, take_errands};
pub use greeting::hello;
pub use handshake::{KNOWN, KNOWN_PER_ADDRESS, UNAUTHENTICATED, UNAUTHENTICATED_PER_ADDRESS};
pub use maintainer::{AT_ONCE, FIRST_WAIT, LONGEST_WAIT};
pub use metrics::TunnelMetrics;
pub use refusal::TunnelError;
pub use server::{TunnelPeers, TunnelServer};

/// The time limit of a handshake, after the connect, and of each hello after it.
pub const HANDSHAKE: Duration = Duration::from_secs(5);
/// The time limit of a connect to the other side.
pub const CONNECT: Duration = Duration::from_secs(4);
/// The time limit of a look-up of the other side's name, if an earlier answer is known: then that is used.
pub const LOOKUP: Duration = Duration::from_secs(1);
/// The interval at which the certificates' files are looked at.
pub const REREAD: Duration = Duration::from_secs(5);
/// The least number of trunks between an edge and the core: a lost packet holds up the streams of one of them alone.
pub const TRUNKS: usize = 4;
/// The most trunks that the core takes from one edge.
pub const MAX_TRUNKS: usize = 512;
/// The most streams that the core takes from one edge, where it has memory enough.
pub const MAX_STREAMS: usize = 65_536;
/// The streams of one edge that the core takes with however little memory.
pub const LEAST_STREAMS: usize = 1024;
/// The age at which a trunk is replaced by a new one, at the latest: its streams go on, and new ones go over the new one.
pub const GREATEST_AGE: Duration = Duration::from_secs(12 * 60 * 60);
/// The time for which a trunk that was replaced carries the streams that it has.
pub const LEFT_FOR: Duration = Duration::from_secs(10 * 60);
/// The files that the core may open for each trunk that it takes from one edge, where they are few.
pub const FILES_PER_TRUNK: u64 = 16;
/// The time over which an edge closes the connections of a trunk that ended, so that their clients do not all come back in one
/// moment.
pub const LOSS_SPREAD: Duration = Duration::from_millis(200);

/// Returns the number of trunks that the side that connects keeps: as many from each worker of one side to each of the other, and
/// never more than half of what the core takes.
fn trunks_wanted(workers: usize, others: usize) -> usize {
    let pairs = (workers * others).clamp(1, MAX_TRUNKS / 2);
    TRUNKS.div_ceil(pairs) * pairs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_enough_trunks_and_as_many_for_each_pair_of_workers() {
        for (workers, others, trunks) in
            [(1, 1, 4), (1, 2, 4), (2, 2, 4), (3, 1, 6), (4, 2, 8), (1, 16, 16), (16, 16, 256)]
        {
            assert_eq!(trunks_wanted(workers, others), trunks, "{workers} and {others}");
            assert_eq!(trunks_wanted(others, workers), trunks);
        }
        assert_eq!(trunks_wanted(64, 64), MAX_TRUNKS / 2);
    }
}
