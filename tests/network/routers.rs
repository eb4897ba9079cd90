//! The core behind a router that restarts, and behind a firewall that forgets: sessions go on, and trunks come back.

use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use otproxy::tunnel::TRUNKS;
use otproxy_testkit::player::ClientClocks;

use crate::common::process::otproxy;
use crate::host;
use crate::topology::{ROUTED, Topology, ms};
use crate::traffic::{Play, Traffic, eventually};

/// The time that the router is away.
const AWAY: Duration = Duration::from_secs(4);
/// Packets that each session sends and gets after each fault.
const SOME: u64 = 3;
/// Whether a kernel follows a connection of which it has not seen the beginning.
const LOOSE: &str = "net/netfilter/nf_conntrack_tcp_loose";
const FIREWALL: &str = include_str!("../init/golden/dial/core/nftables.conf");

/// The trunks that there are to be after a fault.
#[derive(PartialEq)]
enum Trunks {
    /// None of those that there were.
    New,
    /// Some may have outlived it.
    OfAnyAge,
}

/// Something that goes wrong, from its beginning on.
struct Fault<'h> {
    home: &'h Home,
    what: &'static str,
    began: Instant,
    made: f64,
}

impl<'h> Fault<'h> {
    fn begins(home: &'h Home, what: &'static str) -> Self {
        home.traffic.forget_lateness();
        Self { home, what, began: Instant::now(), made: home.made() }
    }

    /// Waits until all is as before, and says how long each part took.
    fn ends(self, trunks: Trunks) {
        let Self { home, what, began, made } = self;
        let seconds = || began.elapsed().as_secs_f64();
        home.lets_in();
        let somebody_new = seconds();
        if trunks == Trunks::New {
            let all = (TRUNKS * ROUTED.len()) as f64;
            eventually("all trunks are made anew", || home.made() >= made + all);
        }
        home.wait_for_trunks();
        let trunks = seconds();
        home.goes_on();
        let (latest, made) = (home.traffic.latest().as_secs_f64(), home.made() - made);
        println!(
            "{what}: somebody new after {somebody_new:.1} s, trunks {trunks:.1} s ({made} made), all players {:.1} s; \
             latest packet {latest:.1} s",
            seconds()
        );
    }
}

/// A core behind a router, and 20 players over both edges.
struct Home {
    traffic: Traffic,
    topology: Topology,
}

impl Home {
    fn new() -> Self {
        let topology = Topology::behind_a_router(1);
        // Clients that give no session up, however slow the machine is.
        let clocks = ClientClocks { session_silence: ms(600_000), ..ClientClocks::default() };
        let traffic = Traffic::start(&topology, &Play { players: 20, clocks, ..Play::new(&ROUTED, 2) });
        let home = Self { traffic, topology };
        home.wait_for_trunks();
        home
    }

    /// How often the core has made a trunk.
    fn made(&self) -> f64 {
        self.topology.core_metric("otproxy_tunnel_handshakes_total", &["result=\"ok\""])
    }

    /// Waits until both sides of each edge's tunnel know the same number of trunks, and so no dead one: at least as many as there are
    /// to be, as one that is being replaced lives on.
    fn wait_for_trunks(&self) {
        eventually("both sides know the same trunks", || {
            ROUTED.iter().all(|edge| {
                let (name, label) = ("otproxy_tunnel_trunks", format!("edge=\"{edge}\""));
                let at_core = self.topology.core_metric(name, &[&label]);
                at_core >= TRUNKS as f64 && self.topology.edge_metric(edge, name, &[&label]) == at_core
            })
        });
    }

    /// Waits until players are in the game as before.
    fn goes_on(&self) {
        self.traffic.wait_for_links(&[0, 1]);
        self.traffic.wait_for_packets(SOME);
        self.traffic.wait_for_links(&[0, 1]);
    }

    /// Waits until somebody new is let in through each edge, as far as the core.
    fn lets_in(&self) {
        for edge in ROUTED {
            let address = self.topology.edge_address(edge).to_string();
            let answered = || {
                let mut ping: Command = otproxy(&["ping", &address, "--count", "1", "--timeout", "2s"]);
                self.topology.network().host("player").inside(|| ping.output().unwrap().status.success())
            };
            eventually("somebody new is let in", answered);
        }
    }

    /// The router is gone for a while; what it does meanwhile is up to `restart`.
    fn lose_the_router(&self, restart: impl FnOnce()) {
        let network = self.topology.network();
        let links = [[ROUTED[0], "router"], [ROUTED[1], "router"], ["router", "core"]];
        links.iter().for_each(|ends| network.change(*ends, |link| link.up = false));
        thread::sleep(AWAY);
        restart();
        links.iter().for_each(|ends| network.change(*ends, |link| link.up = true));
    }

    fn finish(self) {
        let outcome = self.traffic.finish();
        println!("{outcome}");
        outcome.assert_perfect();
    }
}

#[test]
fn nothing_is_lost_while_the_router_at_the_cores_side_restarts() {
    if !host::can_be_made() || !host::nft_is_here() {
        return;
    }
    let home = Home::new();
    let router = home.topology.network().host("router");

    let fault = Fault::begins(&home, "the router is away, and knows its connections");
    home.lose_the_router(|| {});
    fault.ends(Trunks::OfAnyAge);

    let fault = Fault::begins(&home, "the router has forgotten them, and follows those that it sees");
    home.lose_the_router(|| router.forget_connections());
    fault.ends(Trunks::OfAnyAge);

    let fault = Fault::begins(&home, "the router has forgotten them, and drops what it does not know");
    router.set(LOOSE, "0");
    home.lose_the_router(|| router.forget_connections());
    fault.ends(Trunks::New);

    let fault = Fault::begins(&home, "the router has forgotten them, and has another address");
    router.set(LOOSE, "1");
    home.lose_the_router(|| {
        move_router(&home.topology);
        router.forget_connections();
    });
    fault.ends(Trunks::New);

    home.finish();
}

/// Gives the router another address towards each edge.
fn move_router(topology: &Topology) {
    for (index, edge) in ROUTED.into_iter().enumerate() {
        let network = topology.network();
        let (old, there) = (network.address("router", edge), network.address(edge, "router"));
        network.host("router").ip(&format!(
            "addr del {old} peer {there} dev {edge}-router\naddr add 10.98.0.{} peer {there} dev {edge}-router\n",
            index + 1
        ));
    }
}

#[test]
fn nothing_is_lost_while_the_cores_firewall_is_loaded_and_forgets_connections() {
    if !host::can_be_made() || !host::nft_is_here() {
        return;
    }
    let home = Home::new();
    let core = home.topology.network().host("core");

    let fault = Fault::begins(&home, "the core's firewall is loaded");
    core.load_rules(FIREWALL);
    fault.ends(Trunks::OfAnyAge);

    let fault = Fault::begins(&home, "the core's firewall has forgotten connections");
    core.forget_connections();
    fault.ends(Trunks::OfAnyAge);

    let fault = Fault::begins(&home, "the core's firewall has forgotten them, and drops what it does not know");
    core.set(LOOSE, "0");
    core.forget_connections();
    fault.ends(Trunks::New);

    home.finish();
}
