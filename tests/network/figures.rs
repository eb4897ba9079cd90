//! How late packets are, over one path and over two. Asserts no times: it prints a table, for
//! docs/network.md. Run by hand, on a machine that has nothing else to do:
//!
//! ```console
//! # cargo test --release --test network -- --ignored --nocapture figures
//! ```

use std::thread;
use std::time::Duration;

use crate::host;
use crate::topology::{Topology, ms, paths};
use crate::traffic::{Outcome, Play, Traffic};

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

#[test]
#[ignore = "takes minutes and asserts no times: it measures"]
fn figures() {
    if !host::can_be_made() {
        return;
    }
    let (rounds, seconds) = (setting("ROUNDS", 3), setting("SECONDS", 30));
    println!("{rounds} x {seconds} s; one-way ms: p50 p99 p99.9");
    for jitter in [ms(5), ms(30)] {
        for links in [1, 2] {
            let mut sum = Outcome::default();
            for seed in 1..=rounds {
                let outcome = play(seed, jitter, links, seconds);
                outcome.assert_perfect();
                sum.add(outcome);
            }
            println!("jitter {:2} ms, links {links}: {sum}", jitter.as_millis());
        }
    }
}
