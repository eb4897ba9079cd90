//! Handshakes of the tunnel that are begun and go no further: what they cost, and what is left of them.

use std::time::Instant;

use otproxy::admission::REFUSED_LINES;
use otproxy_net::LOG_WINDOW;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::common::certificates::Certificates;
use crate::common::flood::{self, CONNECTIONS, FILES};
use crate::common::metrics::Metered;
use crate::common::role_process::{KIB, MIB, RoleProcess, may_open};
use crate::common::run;

/// How often they come.
const ROUNDS: usize = 3;
/// What one handshake that goes no further may cost in memory.
const COST: usize = 16 * KIB;
const HANDSHAKES: &str = "otproxy_tunnel_handshakes_total";

#[test]
fn half_open_handshakes_leave_nothing_behind_and_an_edge_gets_in_between_them() {
    if !may_open(FILES) {
        return;
    }
    run(async {
        let certificates = Certificates::new();
        let target = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let core = RoleProcess::with(
            "core",
            &format!(
                "tunnel: {{ accept: '127.0.0.1:0', tls: {} }}\nedges: [{{ name: waw1 }}]\n\
                 listeners: [{{ name: login, forward_to: '{}', send_proxy: none }}]\n",
                certificates.tls("core"),
                target.local_addr().unwrap()
            ),
        );
        let (start, tunnel) = (Instant::now(), core.addr("tunnel"));
        let (mut descriptors, memory) = (0, core.memory());
        core.forget_peak();
        for number in 1..=ROUNDS {
            // Nobody is known there yet.
            let gets_in = async {
                let edge = RoleProcess::with(
                    "edge",
                    &format!(
                        "core: {{ dial: '{tunnel}', tls: {}, spare: 3 }}\n\
                         listeners: [{{ name: login, listen: '127.0.0.1:0', forward_to: core/login }}]\n",
                        certificates.tls("waw1")
                    ),
                );
                let mut player = TcpStream::connect(edge.addr("login")).await.unwrap();
                player.write_all(b"?").await.unwrap();
                let mut stream = target.accept().await.unwrap().0;
                assert_eq!(stream.read_u8().await.unwrap(), b'?');
                edge.stop().await;
            };
            flood::round(tunnel, gets_in).await;
            let failed = async |result| core.metric(HANDSHAKES, &[&format!("result=\"{result}\"")]).await;
            while failed("timeout").await + failed("limit").await < (number * CONNECTIONS) as f64 {}
            assert!(failed("limit").await > 0.0, "there were never as many as may be");
            if number == 1 {
                // Those of all its threads are open now.
                descriptors = core.descriptors();
            }
            // A scrape has one of its own for a moment.
            core.wait_for_descriptors(|now| now <= descriptors).await;
        }
        let (peak, after) = (core.peak(), core.memory());
        eprintln!("{} KiB, {} KiB at most, {} KiB after", memory / KIB, peak / KIB, after / KIB);
        // As much as if all of one round had been there at once, whatever the number of rounds.
        assert!(peak <= memory + CONNECTIONS * COST + 2 * MIB);
        let windows = start.elapsed().as_secs() / LOG_WINDOW.as_secs() + 1;
        for result in ["timeout", "limit"] {
            let line = format!("tunnel handshake failed: {result}");
            let lines = core.log().lines().filter(|logged| logged.contains(&line)).count() as u64;
            assert!((1..=u64::from(REFUSED_LINES) * windows).contains(&lines), "{lines} lines of {line:?}");
        }
        core.stop().await;
    });
}
