//! A core that keeps its edges, which see each other over an internet: what clients are told of one whose public side is cut.

use std::time::Instant;

use crate::host;
use crate::topology::{EDGES, INTERNET, Topology};
use crate::traffic::{Play, Traffic, eventually};

/// Packets that each session sends and gets after each fault.
const SOME: u64 = 3;

/// Waits until clients are told of exactly these edges, and says how long that took.
fn told_of(topology: &Topology, edges: &[&str]) {
    let began = Instant::now();
    eventually("clients are told of the edges that work", || topology.told() == edges);
    println!("clients are told of {edges:?} after {:.1} s", began.elapsed().as_secs_f64());
}

/// Waits until the core has seen in some rounds that each edge can be used: one that it never saw it waits for.
fn seen(topology: &Topology) {
    let visits =
        |edge| topology.core_metric("otproxy_edge_probes_total", &[&format!("edge=\"{edge}\""), "result=\"ok\""]);
    eventually("all edges reach each other", || EDGES.iter().all(|edge| visits(edge) >= 4.0));
}

fn cut(topology: &Topology, edge: &'static str, up: bool) {
    topology.network().change([INTERNET, edge], |link| link.up = up);
}

#[test]
fn an_edge_whose_public_side_is_cut_is_not_told_of_until_it_is_back_and_its_players_play_on() {
    if !host::can_be_made() {
        return;
    }
    let topology = Topology::in_an_internet(1, "{ rise: 3 }");
    let traffic = Traffic::start(&topology, &Play { players: 20, ..Play::new(&EDGES, 2) });
    told_of(&topology, &EDGES);
    seen(&topology);

    cut(&topology, "e1", false);
    told_of(&topology, &["e2", "e3"]);
    traffic.wait_for_packets(SOME);
    // Its tunnel has stood all the while.
    assert!(topology.core_metric("otproxy_tunnel_trunks", &["edge=\"e1\""]) > 0.0);
    cut(&topology, "e1", true);
    told_of(&topology, &EDGES);
    traffic.wait_for_packets(SOME);
    traffic.wait_for_links(&[0, 1, 2]);

    let outcome = traffic.finish();
    println!("{outcome}");
    outcome.assert_perfect();
}

#[test]
fn with_all_edges_cut_clients_are_told_of_all() {
    if !host::can_be_made() {
        return;
    }
    let topology = Topology::in_an_internet(2, "{ fall: 2 }");
    told_of(&topology, &EDGES);
    seen(&topology);
    let visits = || {
        EDGES.map(|edge| {
            topology.core_metric("otproxy_edge_probes_total", &[&format!("edge=\"{edge}\""), "result=\"failed\""])
        })
    };
    EDGES.iter().for_each(|edge| cut(&topology, edge, false));
    // More rounds than one edge alone would take to be out.
    let before = visits();
    eventually("all edges are seen to be out of reach", || {
        visits().iter().zip(before).all(|(now, before)| *now >= before + 8.0)
    });
    assert_eq!(topology.told(), EDGES);
}
