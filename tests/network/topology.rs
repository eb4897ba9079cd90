//! Players, edges, core and game server on hosts of their own, with the real program on edges and core.
//!
//! ```text
//! player --- e1 (20 ms) --- core --- game
//!        --- e2 (25 ms) ---
//!        --- e3 (40 ms) ---      (edges to core: 5 ms)
//! ```
//!
//! Or behind a router, with the tunnel in trunks that the core makes, and the game server beside the core:
//!
//! ```text
//! player --- e1 (20 ms) --- router --- core
//!        --- e2 (25 ms) ---                 (edges to router: 5 ms)
//! ```
//!
//! Or with the edges in an internet of their own, where they see each other as players see them:
//!
//! ```text
//! player --- internet --- e1 (20 ms) --- core
//!                     --- e2 (25 ms) ---
//!                     --- e3 (40 ms) ---      (edges to core: 5 ms)
//! ```

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use crate::common;
use crate::common::certificates::Certificates;
use crate::common::folder::Folder;
use crate::common::http;
use crate::common::metrics;
use crate::common::process::{Log, Running, otproxy};
use crate::host::Host;
use crate::link::Conditions;
use crate::simulator::{Network, Spec};

/// The edges' hosts.
pub const EDGES: [&str; 3] = ["e1", "e2", "e3"];
/// Those of them that the core reaches through a router.
pub const ROUTED: [&str; 2] = ["e1", "e2"];
/// The port that players ask for, and that the game server has.
pub const GAME_PORT: u16 = 7172;
/// The host between players and edges, where there is one.
pub const INTERNET: &str = "net";
const LINKS_PORT: u16 = 7162;
const WEB_PORT: u16 = 8080;
const TUNNEL_PORT: u16 = 7100;
/// The masquerading of a router, which takes in nothing else from the edges' side.
const MASQUERADE: &str = "\
table ip router {
    chain out { type nat hook postrouting priority srcnat; oifname != \"router-core\" masquerade; }
    chain input { type filter hook input priority filter; policy drop; ct state established,related accept; }
    chain forward {
        type filter hook forward priority filter; policy drop
        ct state established,related accept
        ct state invalid drop
        iifname \"router-core\" accept
    }
}
";

/// Milliseconds.
pub const fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}

/// What a player's paths are like, from each edge's.
pub fn paths(jitter: Duration, loss: f64) -> [Conditions; 3] {
    [ms(20), ms(25), ms(40)].map(|delay| Conditions { delay, jitter, loss, ..Conditions::default() })
}

/// The hosts, and the program on edges and core.
pub struct Topology {
    // Before the network: what runs on a host ends first.
    edges: Vec<Role>,
    core: Role,
    network: Network,
    /// The host of the game server.
    game: &'static str,
    folder: Folder,
}

impl Topology {
    /// Makes all of it. Nothing is waited for: players try again until they are served.
    pub fn new(seed: u64, paths: [Conditions; 3]) -> Self {
        let near = Conditions { delay: ms(5), ..Conditions::default() };
        let mut specs: Vec<Spec> = EDGES.into_iter().zip(paths).map(|(edge, path)| (["player", edge], path)).collect();
        specs.extend(EDGES.map(|edge| ([edge, "core"], near)));
        specs.push((["core", "game"], Conditions::default()));
        let network = Network::new(seed, &specs);
        give_players_addresses(&network, &EDGES);
        let folder = Folder::new();
        let core = Role::start(&network, "core", "core", &folder, &core_yaml(&network));
        let edges = EDGES.map(|edge| Role::start(&network, edge, "edge", &folder, &edge_yaml(&network, edge)));
        Self { edges: edges.into(), core, network, game: "game", folder }
    }

    /// The core with a router that masquerades between it and two edges, to which it connects.
    pub fn behind_a_router(seed: u64) -> Self {
        let near = Conditions { delay: ms(5), ..Conditions::default() };
        let mut specs: Vec<Spec> =
            ROUTED.into_iter().zip(paths(ms(0), 0.0)).map(|(edge, path)| (["player", edge], path)).collect();
        specs.extend(ROUTED.map(|edge| ([edge, "router"], near)));
        specs.push((["router", "core"], Conditions::default()));
        let network = Network::new(seed, &specs);
        give_players_addresses(&network, &ROUTED);
        let router = network.host("router");
        router.set("net/ipv4/ip_forward", "1");
        router.load_rules(MASQUERADE);
        for edge in ROUTED {
            let address = network.address(edge, "router");
            network.host("core").ip(&format!("route add {address} dev router-core\n"));
            // The other addresses that the router may have.
            network.host(edge).ip(&format!("route add 10.98.0.0/16 dev {edge}-router\n"));
        }
        let certificates = Certificates::new();
        let edges = ROUTED.map(|edge| {
            let yaml = format!(
                "role: edge\nname: {edge}\nworkers: 2\nlog: {{ level: warn }}\ncore: {{ accept: \"0.0.0.0:{TUNNEL_PORT}\", tls: {} }}\n\
                 listeners:\n  - {{ name: links, listen: \"0.0.0.0:{LINKS_PORT}\", forward_to: core/links }}\n",
                certificates.tls(edge)
            );
            Role::start(&network, edge, "edge", &certificates.folder, &yaml)
        });
        let core =
            Role::start(&network, "core", "core", &certificates.folder, &routed_core_yaml(&network, &certificates));
        Self { edges: edges.into(), core, network, game: "core", folder: certificates.folder }
    }

    /// The edges in an internet, with a core that keeps them and tells clients of them. `health` is its mapping `fleet`, and `more`
    /// is whatever else is in its file.
    pub fn in_an_internet(seed: u64, health: &str, more: &str) -> Self {
        let near = Conditions { delay: ms(5), ..Conditions::default() };
        let mut specs: Vec<Spec> = vec![(["player", INTERNET], Conditions::default())];
        specs.extend(EDGES.into_iter().zip(paths(ms(0), 0.0)).map(|(edge, path)| ([INTERNET, edge], path)));
        specs.extend(EDGES.map(|edge| ([edge, "core"], near)));
        let network = Network::new(seed, &specs);
        let internet = network.host(INTERNET);
        internet.set("net/ipv4/ip_forward", "1");
        internet.ip(&format!("route add 10.99.0.0/16 dev player-{INTERNET}\n"));
        network.host("player").ip("route add local 10.99.0.0/16 dev lo\n");
        for edge in EDGES {
            let public = network.address(edge, INTERNET);
            network.host("player").ip(&format!("route add {public} dev player-{INTERNET}\n"));
            let others = EDGES.iter().filter(|other| **other != edge);
            let routes =
                others.map(|other| format!("route add {} dev {INTERNET}-{edge}\n", network.address(other, INTERNET)));
            let players = format!("route add 10.99.0.0/16 dev {INTERNET}-{edge}\n");
            network.host(edge).ip(&routes.chain([players]).collect::<String>());
        }
        let certificates = Certificates::new();
        let known = EDGES.map(|edge| {
            let (dial, public) = (network.address(edge, "core"), network.address(edge, INTERNET));
            format!("  - {{ name: {edge}, dial: \"{dial}:{TUNNEL_PORT}\", public: \"{public}\" }}\n")
        });
        let edges = EDGES.map(|edge| {
            let yaml = format!(
                "role: edge\nname: {edge}\nlog: {{ level: warn }}\ncore: {{ accept: \"0.0.0.0:{TUNNEL_PORT}\", tls: {} }}\n\
                 listeners:\n  - {{ name: links, listen: \"0.0.0.0:{LINKS_PORT}\", forward_to: core/links }}\n",
                certificates.tls(edge)
            );
            Role::start(&network, edge, "edge", &certificates.folder, &yaml)
        });
        let core = format!(
            "role: core\nlog: {{ level: info }}\nsessions: {{ linger: 10m }}\ntunnel: {{ tls: {} }}\nfleet: {health}\nedges:\n{}\
             listeners:\n  - {{ name: links, kind: relay }}\n  - {{ name: web, kind: web, listen: \"127.0.0.1:{WEB_PORT}\", \
             accept_proxy: none, routes: {{ proxies: [{{ name: all }}] }} }}\n\
             game_servers:\n  - {{ port: {GAME_PORT}, address: \"127.0.0.1:{GAME_PORT}\" }}\n{more}",
            certificates.tls("core"),
            known.concat()
        );
        let core = Role::start(&network, "core", "core", &certificates.folder, &core);
        Self { edges: edges.into(), core, network, game: "core", folder: certificates.folder }
    }

    /// The priority that clients are told of an edge; `None` where they are not told of it.
    pub fn priority(&self, edge: &str) -> Option<u64> {
        let list: serde_yaml::Value = serde_yaml::from_str(&self.list()).ok()?;
        let host = format!("{}:{LINKS_PORT}", self.network.address(edge, INTERNET));
        let told = list["proxies"].as_sequence()?.iter().find(|told| told["host"].as_str() == Some(&host))?;
        told["priority"].as_u64()
    }

    /// Returns the log of the core so far.
    pub fn core_log(&self) -> String {
        self.core.log.text()
    }

    /// The edges that clients are told of, by name, as the core answers.
    pub fn told(&self) -> Vec<&'static str> {
        let list = self.list();
        let is_there =
            |edge: &&str| list.contains(&format!("\"{}:{LINKS_PORT}\"", self.network.address(edge, INTERNET)));
        EDGES.into_iter().filter(is_there).collect()
    }

    /// The list for clients; nothing while the core is starting.
    fn list(&self) -> String {
        let web = (Ipv4Addr::LOCALHOST, WEB_PORT).into();
        let asked = self.network.host("core").inside(|| common::run(http::get(web, "/proxies/all")));
        asked.ok().filter(|(status, _)| *status == 200).map_or_else(String::new, |(_, list)| list)
    }

    /// The network.
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// The host of the game server.
    pub fn game(&self) -> &Host {
        self.network.host(self.game)
    }

    /// The sum of all series of a metric of the core that have these labels.
    pub fn core_metric(&self, name: &str, labels: &[&str]) -> f64 {
        self.metric("core", 9163, name, labels)
    }

    /// The same of an edge.
    pub fn edge_metric(&self, edge: &str, name: &str, labels: &[&str]) -> f64 {
        self.metric(edge, 9162, name, labels)
    }

    fn metric(&self, host: &str, port: u16, name: &str, labels: &[&str]) -> f64 {
        let admin = (Ipv4Addr::LOCALHOST, port).into();
        self.network.host(host).inside(|| common::run(metrics::metric(admin, name, labels)))
    }

    /// Where a player finds an edge.
    pub fn edge_address(&self, edge: &str) -> SocketAddr {
        let players = if self.network.has(INTERNET) { INTERNET } else { "player" };
        (self.network.address(edge, players), LINKS_PORT).into()
    }

    /// Kills an edge's process: no goodbye.
    pub fn kill_edge(&mut self, index: usize) {
        self.edges[index].running.kill();
    }

    /// Starts a killed edge again.
    pub fn start_edge(&mut self, index: usize) {
        let edge = EDGES[index];
        self.edges[index] = Role::start(&self.network, edge, "edge", &self.folder, &edge_yaml(&self.network, edge));
    }

    /// How many files an edge's process has open.
    pub fn edge_files(&self, index: usize) -> usize {
        self.edges[index].running.descriptors()
    }

    /// How many files the core's process has open.
    pub fn core_files(&self) -> usize {
        self.core.running.descriptors()
    }
}

/// Gives each player an address, whatever its path.
fn give_players_addresses(network: &Network, edges: &[&'static str]) {
    network.host("player").ip("route add local 10.99.0.0/16 dev lo\n");
    for edge in edges {
        network.host(edge).ip(&format!("route add 10.99.0.0/16 dev player-{edge}\n"));
    }
}

/// The address of a player, the first being 0.
pub fn player_address(index: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, 99, (index / 250) as u8, (index % 250 + 1) as u8)
}

/// Which player has this address.
pub fn player_index(address: Ipv4Addr) -> Option<usize> {
    let [_, _, high, low] = address.octets();
    let index = usize::from(high) * 250 + usize::from(low).checked_sub(1)?;
    (player_address(index) == address).then_some(index)
}

fn core_yaml(network: &Network) -> String {
    let edges: String = EDGES
        .iter()
        .map(|edge| format!("  - {{ name: {edge}, address: {} }}\n", network.address(edge, "core")))
        .collect();
    let game = network.address("game", "core");
    format!(
        "role: core\nlog: {{ level: warn }}\nsessions: {{ linger: 10m }}\nedges:\n{edges}listeners:\n  - {{ name: links, kind: relay, \
         listen: \"0.0.0.0:{LINKS_PORT}\" }}\ngame_servers:\n  - {{ port: {GAME_PORT}, address: \
         \"{game}:{GAME_PORT}\" }}\n"
    )
}

fn routed_core_yaml(network: &Network, certificates: &Certificates) -> String {
    let edges: String = ROUTED
        .iter()
        .map(|edge| format!("  - {{ name: {edge}, dial: \"{}:{TUNNEL_PORT}\" }}\n", network.address(edge, "router")))
        .collect();
    format!(
        "role: core\nworkers: 2\nlog: {{ level: warn }}\nsessions: {{ linger: 10m }}\ntunnel: {{ tls: {} }}\nedges:\n{edges}\
         listeners:\n  - {{ name: links, kind: relay }}\ngame_servers:\n  - {{ port: {GAME_PORT}, address: \
         \"127.0.0.1:{GAME_PORT}\" }}\n",
        certificates.tls("core")
    )
}

fn edge_yaml(network: &Network, edge: &str) -> String {
    let core = network.address("core", edge);
    format!(
        "role: edge\nlog: {{ level: warn }}\nlisteners:\n  - {{ name: links, listen: \"0.0.0.0:{LINKS_PORT}\", \
         forward_to: \"{core}:{LINKS_PORT}\" }}\n"
    )
}

/// A running edge or core. Dropping it kills it.
struct Role {
    running: Running,
    log: Log,
}

impl Role {
    fn start(network: &Network, host: &str, role: &str, folder: &Folder, yaml: &str) -> Self {
        let config = folder.join(format!("{host}.yaml"));
        fs::write(&config, yaml).unwrap();
        let mut command = otproxy(&[role, "--config", config.to_str().unwrap()]);
        let mut running = Running::of(network.host(host).inside(|| command.spawn().unwrap()));
        let log = running.follow();
        Self { running, log }
    }
}

impl Drop for Role {
    fn drop(&mut self) {
        self.running.kill();
        if std::thread::panicking() {
            eprintln!("--- process {}\n{}", self.running.id(), self.log.text());
        }
    }
}
