//! The short file that `otproxy init` makes a whole set-up from: which hosts there are, and which game servers.

use std::net::IpAddr;
use std::path::Path;

use super::core::edge_name;
use super::error::Errors;
use super::keys::WhenAbsent::{Computed, Required, Text};
use super::keys::{Key, Role, key};
use super::listener::Unique;
use super::name::Name;
use super::read::{document, text_of};
use super::scope::Scope;
use super::{PlayerAddress, Target, address, formats};

/// Where clients connect to an edge with links, and where the table `proxies` says so.
pub const LINKS_PORT: u16 = 7162;
/// Where an edge takes logins and status requests without links.
pub const LOGIN_PORT: u16 = 7171;
/// Where an edge and the core serve metrics, as [`super::KEYS`] has it.
pub const ADMIN_PORTS: [u16; 2] = [9162, 9163];

/// Every key of the file, in the order of the reference.
pub const TOPOLOGY_KEYS: &[Key] = &[
    key("edges", "list", Required, "the hosts that players connect to; at least one")
        .example("[{ name: waw1, address: 198.51.100.7 }]"),
    key("edges[].name", "name", Required, "how the edge is called everywhere, its certificate included; unique")
        .example("waw1"),
    key("edges[].address", "address or host name", Required, "the edge's host; with `core.mode: accept` an address")
        .example("198.51.100.7"),
    key(
        "edges[].public",
        "address or host name",
        Computed("`edges[].address`"),
        "what clients are told; a name with one address, as they try no other",
    )
    .example("p1.example"),
    key(
        "edges[].revoked",
        "`true` or `false`",
        Text("false"),
        "the edge is given up: the core refuses it, and clients are not told of it",
    ),
    key(
        "core.mode",
        "`dial` or `accept`",
        Text("dial"),
        "`dial`: the core connects to the edges, has no open port and may be behind NAT; `accept`: the edges connect to it",
    ),
    key(
        "core.address",
        "address or host name",
        Computed("not needed with `mode: dial`"),
        "the core's host; with `mode: dial` it is only in the commands that copy files there",
    )
    .example("core.example"),
    key("tunnel_port", "port", Text("7100"), "the tunnel's port: at the edges, or with `mode: accept` at the core"),
    key("login", "host with port", Text("127.0.0.1:7171"), "the game server's login and status, as seen from the core"),
    key("game_servers", "list", Required, "the worlds; at least one")
        .example("[{ port: 7172, address: \"127.0.0.1:7172\" }]"),
    key("game_servers[].port", "port", Required, "the world's port, as clients ask for it; unique").example("7172"),
    key("game_servers[].address", "host with port", Required, "the world's game server, as seen from the core")
        .example("127.0.0.1:7172"),
    key("game_servers[].name", "text", Computed("no name"), "the world's name, for comments").example("Antica"),
    key(
        "player_address",
        "`otc`, `otc_reversed`, `proxy_v2`, `proxy_v1` or `none`",
        Text("otc"),
        "how the game servers are told players' addresses; `none` where they have no patch for it",
    ),
];

/// What the file says.
#[derive(Debug, Clone, PartialEq)]
pub struct Topology {
    /// `edges`: at least one.
    pub edges: Vec<TopologyEdge>,
    /// `core.mode`
    pub mode: CoreMode,
    /// `core.address`: always there with [`CoreMode::Accept`].
    pub core: Option<String>,
    /// `tunnel_port`
    pub tunnel_port: u16,
    /// `login`
    pub login: Target,
    /// `game_servers`: at least one.
    pub worlds: Vec<World>,
    /// `player_address`
    pub player_address: PlayerAddress,
}

/// `core.mode`: which side opens the tunnel's connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum CoreMode {
    /// The core connects to the edges.
    Dial,
    /// The edges connect to the core.
    Accept,
}

/// `edges[]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopologyEdge {
    /// `name`: unique, and fit for a certificate and a folder.
    pub name: Name,
    /// `address`, an IPv6 one without brackets.
    pub address: String,
    /// `public`
    pub public: String,
    /// `revoked`
    pub revoked: bool,
}

/// `game_servers[]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct World {
    /// `name`
    pub name: Option<String>,
    /// `port`: unique, not 0.
    pub port: u16,
    /// `address`
    pub address: Target,
}

impl World {
    /// Whether its game server is on the core's host, on IPv4's loopback.
    #[must_use]
    pub fn is_on_loopback(&self) -> bool {
        address::is_ipv4_loopback(&self.address)
    }
}

/// Reads and checks the file at `path`.
///
/// # Errors
///
/// Everything that is wrong with it, or that it could not be read.
pub fn load_topology(path: &Path) -> Result<Topology, Errors> {
    let (file, text) = text_of(path)?;
    parse_topology(&file, &text)
}

/// Reads and checks `text`, which errors call `file`.
///
/// # Errors
///
/// Everything that is wrong with it.
pub fn parse_topology(file: &str, text: &str) -> Result<Topology, Errors> {
    let shape = ("the smallest topology has `edges` and `game_servers`", "`edges:`");
    document(file, text, shape, |report, at, entries| {
        // No key here is for one role alone.
        topology(&Scope::root(report, TOPOLOGY_KEYS, Role::Core, at, entries))
    })
}

fn topology(root: &Scope<'_>) -> Option<Topology> {
    let core = root.section("core");
    let mode = core.value("mode", formats::word);
    let core_address = core.optional("address", address::host);
    if mode == Some(CoreMode::Accept) && !core.has("address") {
        core.wrong("address", "is missing: with `mode: accept` the edges connect there; as in `address: core.example`");
    }
    let edges = edges(root, mode);
    let tunnel_port = root.value("tunnel_port", formats::port);
    if let Some(port) = tunnel_port.filter(|port| taken(*port)) {
        root.wrong("tunnel_port", format!("`{port}` is used by otproxy itself; choose another, as 7100"));
    }
    let login = root.value("login", address::target);
    let worlds = worlds(root);
    let player_address = root.value("player_address", formats::word);
    Some(Topology {
        edges: edges?,
        mode: mode?,
        core: core_address?,
        tunnel_port: tunnel_port?,
        login: login?,
        worlds: worlds?,
        player_address: player_address?,
    })
}

/// Whether the files that are made have this port already.
fn taken(port: u16) -> bool {
    [LINKS_PORT, LOGIN_PORT].contains(&port) || ADMIN_PORTS.contains(&port)
}

fn edges(root: &Scope<'_>, mode: Option<CoreMode>) -> Option<Vec<TopologyEdge>> {
    let (mut names, mut hosts) = (Unique::default(), Unique::default());
    let read = |item: Scope<'_>| {
        item.check_keys();
        let name = edge_name(&item, true, &mut names).and_then(|name| Name::edge(&name).ok());
        let host = item.value("address", address::host);
        let revoked = item.value("revoked", formats::flag);
        if let Some(host) = &host {
            // Another edge may have come in the place of one that is given up.
            if revoked != Some(true) {
                hosts.claim(&item, item.spot("address"), host.clone());
            }
            if mode == Some(CoreMode::Accept) && host.parse::<IpAddr>().is_err() {
                let message = format!(
                    "`{host}` is a name, and the core's firewall lets in addresses; give the address here, and the name as `public`"
                );
                item.wrong("address", message);
            }
        }
        let public = item.optional("public", address::host);
        let (address, public) = (host?, public?);
        Some(TopologyEdge {
            name: name?,
            public: public.unwrap_or_else(|| address.clone()),
            address,
            revoked: revoked?,
        })
    };
    let items = root.items("edges")?;
    if items.is_empty() {
        root.wrong("edges", "is an empty list; give at least one, as in `- { name: waw1, address: 198.51.100.7 }`");
    }
    let edges: Vec<_> = items.into_iter().map(read).collect();
    edges.into_iter().collect()
}

fn worlds(root: &Scope<'_>) -> Option<Vec<World>> {
    let mut ports = Unique::default();
    let read = |item: Scope<'_>| {
        item.check_keys();
        let port = item.value("port", formats::port);
        if let Some(port) = port {
            ports.claim(&item, item.spot("port"), port.to_string());
        }
        let address = item.value("address", address::target);
        let name = item.optional("name", formats::title);
        Some(World { name: name?, port: port?, address: address? })
    };
    let items = root.items("game_servers")?;
    if items.is_empty() {
        root.wrong(
            "game_servers",
            "is an empty list; give at least one, as in `- { port: 7172, address: \"127.0.0.1:7172\" }`",
        );
    }
    let worlds: Vec<_> = items.into_iter().map(read).collect();
    worlds.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::super::KEYS;
    use super::*;

    #[test]
    fn the_least() {
        let text = "edges: [{ name: waw1, address: 198.51.100.7 }]\n\
            game_servers: [{ port: 7172, address: '127.0.0.1:7172' }]\n";
        let topology = parse_topology("t.yaml", text).unwrap_or_else(|errors| panic!("{errors}"));
        assert_eq!((topology.mode, topology.core, topology.tunnel_port), (CoreMode::Dial, None, 7100));
        assert_eq!(topology.login.to_string(), "127.0.0.1:7171");
        assert_eq!(topology.edges[0].public, "198.51.100.7");
        assert_eq!((topology.worlds[0].port, &topology.worlds[0].name), (7172, &None));
        assert_eq!(topology.player_address, PlayerAddress::Otc);
    }

    #[test]
    fn the_ports_of_the_admin_are_the_defaults() {
        let listen = KEYS.iter().find(|key| key.path == "admin.listen").expect("a key");
        let defaults = [Role::Edge, Role::Core].map(|role| listen.default_for(role, None).expect("a default"));
        assert_eq!(defaults, ADMIN_PORTS.map(|port| format!("127.0.0.1:{port}")));
    }
}
