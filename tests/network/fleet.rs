//! A core that keeps its edges, which see each other over an internet: what clients are told of one whose public side is cut.

use std::time::{Duration, Instant};

use otproxy::proxies_table::create_table;

use crate::common::mariadb::MariaDb;
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
    let topology = Topology::in_an_internet(1, "{ rise: 3 }", "");
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
    let topology = Topology::in_an_internet(2, "{ fall: 2 }", "");
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

fn is_in(topology: &Topology, edge: &str, state: &str) -> bool {
    topology.core_metric("otproxy_edge_state", &[&format!("edge=\"{edge}\""), &format!("state=\"{state}\"")]) == 1.0
}

#[test]
fn an_edge_over_which_players_lose_links_is_hit_and_told_of_with_a_higher_priority() {
    if !host::can_be_made() {
        return;
    }
    let topology = Topology::in_an_internet(3, "{ fall: 1000 }", "");
    let traffic = Traffic::start(&topology, &Play { players: 20, ..Play::new(&EDGES, 2) });
    told_of(&topology, &EDGES);
    seen(&topology);
    assert_eq!(topology.priority("e1"), Some(0));

    let began = Instant::now();
    topology.network().change([INTERNET, "e1"], |link| link.loss = 0.7);
    eventually("the edge is hit", || is_in(&topology, "e1", "hit"));
    println!("it is hit after {:.1} s", began.elapsed().as_secs_f64());
    eventually("clients are told so", || topology.priority("e1") == Some(100));
    assert_eq!((topology.told(), topology.priority("e2")), (EDGES.to_vec(), Some(0)));
    traffic.wait_for_packets(SOME);
    topology.network().change([INTERNET, "e1"], |link| link.loss = 0.0);
    traffic.wait_for_links(&[0, 1, 2]);

    let outcome = traffic.finish();
    println!("{outcome}");
    outcome.assert_perfect();
}

/// Turns of the flapping: each is a second, in which the edge's public side is cut or there.
const TURNS: u32 = 65;

#[test]
fn an_edge_that_flaps_each_second_changes_its_state_once_a_minute_at_the_most() {
    if !host::can_be_made() {
        return;
    }
    let topology = Topology::in_an_internet(4, "{ every: 1s, fall: 1, rise: 1 }", "");
    let traffic = Traffic::start(&topology, &Play { players: 20, ..Play::new(&EDGES, 2) });
    told_of(&topology, &EDGES);
    seen(&topology);

    let began = Instant::now();
    for turn in 0..TURNS {
        cut(&topology, "e1", turn % 2 == 1);
        // The network's own time, and not a wait for anything.
        std::thread::sleep(Duration::from_secs(1));
    }
    let changes = || {
        let log = topology.core_log();
        log.lines().filter(|line| line.contains("\"an edge is ") && line.contains("\"edge\":\"e1\"")).count()
    };
    eventually("it has been seen", || changes() > 0);
    let changes = changes();
    let minutes = began.elapsed().as_secs() / 60;
    println!(
        "{changes} changes in {:.1} s; now clients are told of {:?}",
        began.elapsed().as_secs_f64(),
        topology.told()
    );
    assert!(changes as u64 <= minutes + 1, "{changes}\n{}", topology.core_log());
    traffic.wait_for_packets(SOME);

    let outcome = traffic.finish();
    println!("{outcome}");
    outcome.assert_perfect();
}

#[test]
fn an_edge_whose_public_side_is_cut_is_disabled_in_the_table_of_proxies_until_it_is_back() {
    if !host::can_be_made() {
        return;
    }
    let Some(database) = MariaDb::new() else { return };
    assert!(database.try_sql("mysql", "CREATE DATABASE myot").is_some_and(|made| made.status.success()));
    database.sql(&format!(
        "{}; CREATE USER keeper@localhost; GRANT SELECT, INSERT, UPDATE ON myot.proxies TO keeper@localhost",
        create_table("proxies")
    ));
    let table = format!("proxies_table: {{ socket: {}, user: keeper, database: myot }}\n", database.socket().display());
    let topology = Topology::in_an_internet(5, "{ rise: 3 }", &table);
    let rows = |wanted: [&str; 3]| {
        let began = Instant::now();
        eventually("the table has the edges so", || {
            EDGES.iter().zip(wanted).all(|(edge, disabled)| {
                let host = topology.network().address(edge, INTERNET);
                database.sql(&format!("SELECT disabled FROM proxies WHERE host = '{host}'")) == [disabled]
            })
        });
        println!("the table says {wanted:?} after {:.1} s", began.elapsed().as_secs_f64());
    };
    let traffic = Traffic::start(&topology, &Play { players: 20, ..Play::new(&EDGES, 2) });
    rows(["0", "0", "0"]);
    seen(&topology);

    cut(&topology, "e1", false);
    rows(["2", "0", "0"]);
    assert_eq!(topology.told(), ["e2", "e3"]);
    cut(&topology, "e1", true);
    rows(["0", "0", "0"]);
    traffic.wait_for_links(&[0, 1, 2]);

    let outcome = traffic.finish();
    println!("{outcome}");
    outcome.assert_perfect();
}
