//! Players, edges, core and game server, each on a host of its own, with the real program on edges and core.
//!
//! ```text
//! player --- e1 (20 ms) --- core --- game
//!        --- e2 (25 ms) ---
//!        --- e3 (40 ms) ---      (edges to core: 5 ms)
//! ```

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use crate::common::folder::Folder;
use crate::common::process::{Log, Running, otproxy};
use crate::link::Conditions;
use crate::simulator::{Network, Spec};

/// The edges' hosts.
pub const EDGES: [&str; 3] = ["e1", "e2", "e3"];
/// The port that players ask for, and that the game server has.
pub const GAME_PORT: u16 = 7172;
const LINKS_PORT: u16 = 7162;

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
        // Each player has an address, whatever its path.
        network.host("player").ip("route add local 10.99.0.0/16 dev lo\n");
        for edge in EDGES {
            network.host(edge).ip(&format!("route add 10.99.0.0/16 dev player-{edge}\n"));
        }
        let folder = Folder::new();
        let core = Role::start(&network, "core", "core", &folder, &core_yaml(&network));
        let edges = EDGES.map(|edge| Role::start(&network, edge, "edge", &folder, &edge_yaml(&network, edge)));
        Self { edges: edges.into(), core, network, folder }
    }

    /// The network.
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// Where a player finds an edge.
    pub fn edge_address(&self, edge: &str) -> SocketAddr {
        (self.network.address(edge, "player"), LINKS_PORT).into()
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
