//! The figures of docs/network.md, which says how to run these: by hand, on a machine that has nothing
//! else to do. They print what they measure and assert no times.

use std::thread;
use std::time::{Duration, Instant};

use otproxy_testkit::player::ClientClocks;

use crate::host;
use crate::topology::{Topology, ms, paths};
use crate::traffic::{Outcome, Play, Traffic, percentile};

/// The number in the environment variable `name`, or else `default`.
fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name}={text}: no number")))
}

/// Plays for `seconds` over one or two links; the first seconds do not count.
fn play(seed: u64, jitter: Duration, links: usize, seconds: u64) -> Outcome {
    let topology = Topology::new(seed, paths(jitter, 0.01));
    let edges = if links == 1 { &["e1"][..] } else { &["e1", "e2"] };
    let traffic = Traffic::start(&topology, &Play::new(edges, links));
    traffic.wait_for_packets(20);
    traffic.forget_lateness();
    thread::sleep(Duration::from_secs(seconds));
    traffic.finish()
}

/// How late packets are, over one path and over two.
#[test]
#[ignore = "takes minutes and asserts no times: it measures"]
fn lateness() {
    if !host::can_be_made() {
        return;
    }
    let (rounds, seconds) = (setting("ROUNDS", 3), setting("SECONDS", 30));
    println!("{rounds} x {seconds} s; one-way ms: p50 p99 p99.9");
    let cases = [(5, 1), (5, 2), (30, 1), (30, 2)];
    thread::scope(|scope| {
        let games = cases.map(|(jitter, links)| {
            scope.spawn(move || {
                let mut sum = Outcome::default();
                for seed in 1..=rounds {
                    let outcome = play(seed, ms(jitter), links, seconds);
                    outcome.assert_perfect();
                    sum.add(outcome);
                }
                sum
            })
        });
        for ((jitter, links), game) in cases.into_iter().zip(games) {
            println!("jitter {jitter:2} ms, links {links}: {}", game.join().unwrap());
        }
    });
}

/// How long pongs take on a path that is too slow for the session on it, while another path is not.
#[test]
#[ignore = "takes minutes and asserts no times: it measures"]
fn backlog() {
    if !host::can_be_made() {
        return;
    }
    let seconds = setting("SECONDS", 30);
    let mut paths = paths(ms(5), 0.0);
    (paths[0].rate, paths[0].queue) = (Some(256_000), 16 * 1024);
    let topology = Topology::new(1, paths);
    // 100 kB a second, for a path of 32.
    let every = [ms(200), ms(10)];
    let clocks = ClientClocks { link_check: ms(100), ..ClientClocks::default() };
    let play = Play { players: 1, every, sizes: [40, 1000], clocks, ..Play::new(&["e1", "e2"], 2) };
    let traffic = Traffic::start(&topology, &play);
    traffic.wait_for_links(&[0, 1]);
    traffic.wait_for_packets(25);
    traffic.forget_lateness();
    let mut pongs = [Vec::new(), Vec::new()];
    let end = Instant::now() + Duration::from_secs(seconds);
    while Instant::now() < end {
        thread::sleep(ms(5));
        for (path, pongs) in pongs.iter_mut().enumerate() {
            let now = traffic.round_trips(path);
            if pongs.last() != now.last() {
                pongs.extend(now);
            }
        }
    }
    let outcome = traffic.finish();
    outcome.assert_perfect();
    for (path, mut pongs) in pongs.into_iter().enumerate() {
        pongs.sort_unstable();
        let [p50, p99, most] = [0.5, 0.99, 1.0].map(|share| percentile(&pongs, share).as_millis());
        println!("path {path}: {} pongs, p50 {p50}, p99 {p99}, most {most} ms", pongs.len());
    }
    println!("{outcome}");
}

/// How long an edge and the core hold what belongs to a path that swallows everything.
#[test]
#[ignore = "takes minutes and asserts no times: it measures"]
fn black_hole() {
    if !host::can_be_made() {
        return;
    }
    for (what, ends) in [("players vanish", ["player", "e1"]), ("the core vanishes", ["e1", "core"])] {
        let topology = Topology::new(1, paths(ms(5), 0.0));
        let files = || [topology.edge_files(0), topology.core_files()];
        // One player first, so that all that an idle role has open is open.
        drop(Traffic::start(&topology, &Play { players: 1, ..Play::new(&["e1"], 1) }));
        thread::sleep(Duration::from_secs(5));
        let idle = files();
        let traffic = Traffic::start(&topology, &Play { players: 10, ..Play::new(&["e1"], 1) });
        traffic.wait_for_packets(20);
        let busy = files();
        topology.network().change(ends, |link| link.up = false);
        let start = Instant::now();
        if ends[1] == "core" {
            // The players notice, and go; the edge is told of that.
            thread::sleep(Duration::from_secs(10));
            drop(traffic);
        } else {
            std::mem::forget(traffic);
        }
        let mut done = [None; 2];
        while done.iter().any(Option::is_none) && start.elapsed() < Duration::from_secs(120) {
            thread::sleep(ms(100));
            for ((done, now), idle) in done.iter_mut().zip(files()).zip(idle) {
                if now <= idle {
                    done.get_or_insert(start.elapsed().as_secs_f64());
                }
            }
        }
        println!("{what}: files idle {idle:?}, busy {busy:?}; closed after {done:.1?} s (edge, core)");
    }
}
