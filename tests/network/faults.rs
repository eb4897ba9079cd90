//! Nothing is lost, doubled or out of order, and no session ends, whatever happens to paths and edges.

use otproxy_testkit::player::ClientClocks;

use crate::host;
use crate::topology::{EDGES, Topology, ms, paths};
use crate::traffic::{Play, Traffic, eventually};

/// Packets that each session sends and gets while something is broken, and after it is whole again.
const SOME: u64 = 3;
/// Packets that a cut has dropped, of each direction, before it counts as one.
const DROPPED: u64 = 20;

/// Cuts a link; gives once that has cost packets in both directions.
fn cut(topology: &Topology, ends: [&str; 2]) {
    let network = topology.network();
    let before = network.counts(ends).dropped;
    network.change(ends, |link| link.up = false);
    eventually("a cut drops packets", || {
        network.counts(ends).dropped.iter().zip(before).all(|(now, before)| *now >= before + DROPPED)
    });
}

fn mend(topology: &Topology, ends: [&str; 2]) {
    topology.network().change(ends, |link| link.up = true);
}

#[test]
fn nothing_is_lost_on_lossy_paths_while_paths_edges_and_the_network_behind_them_fail() {
    if !host::can_be_made() {
        return;
    }
    let mut topology = Topology::new(1, paths(ms(30), 0.01));
    // Clients that look after their links more often, so that each fault is over in seconds; and that
    // give no session up, however slow the machine is.
    let clocks = ClientClocks {
        link_check: ms(500),
        later_pong: ms(3000),
        session_check: ms(100),
        session_silence: ms(600_000),
        ..ClientClocks::default()
    };
    let traffic = Traffic::start(&topology, &Play { clocks, ..Play::new(&EDGES, 2) });

    for edge in ["e1", "e2"] {
        cut(&topology, ["player", edge]);
        traffic.wait_for_packets(SOME);
        mend(&topology, ["player", edge]);
        traffic.wait_for_packets(SOME);
    }

    traffic.wait_for_links(&[0, 1, 2]);
    topology.kill_edge(0);
    traffic.wait_for_no_links(&[0]);
    traffic.wait_for_packets(SOME);
    topology.start_edge(0);
    traffic.wait_for_links(&[0]);

    cut(&topology, ["e2", "core"]);
    traffic.wait_for_no_links(&[1]);
    traffic.wait_for_packets(SOME);
    mend(&topology, ["e2", "core"]);
    traffic.wait_for_links(&[1]);

    for edge in EDGES {
        cut(&topology, ["player", edge]);
    }
    traffic.wait_for_no_links(&[0, 1, 2]);
    for edge in EDGES {
        mend(&topology, ["player", edge]);
    }
    traffic.wait_for_packets(SOME);
    traffic.wait_for_links(&[0, 1, 2]);
    traffic.wait_for_packets(SOME);

    let outcome = traffic.finish();
    println!("{outcome}");
    outcome.assert_perfect();
}
