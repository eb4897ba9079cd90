//! The short file that `otproxy init` makes a whole set-up from: which hosts there are, and which game servers.

use std::net::{IpAddr, Ipv6Addr};
use std::path::Path;
use std::sync::LazyLock;

use otproxy_protocol::player_address::PlayerAddress;
use otproxy_protocol::words;

use super::address::{ADDRESS_OR_HOST, HostPort, TARGET};
use super::declare::{Read, Section as _, section};
use super::document::{document, text_of};
use super::edges::{LINKS_PORT, name};
use super::error::ConfigErrors;
use super::fleet::EdgeTraffic;
use super::formats::{COUNT, FLAG, LABEL, MILLISECONDS, PORT, TITLE, URL};
use super::key::{Key, RoleKind};
use super::mapping::mapping;
use super::name::Name;
use super::profile::{GameServerProfile, GameServerSettings};
use super::scope::Scope;
use super::spare_names::spare_names;
use super::ssh::{SSH, SshTarget};
use super::takes::{Takes, items, list, value, word};
use super::web::LISTS_PATH;

/// The port at which an edge accepts logins and status requests without links.
pub const LOGIN_PORT: u16 = 7171;
/// The port of a world, as stock game servers have it.
pub const GAME_PORT: u16 = 7172;
/// The tunnel's port without `tunnel_port`.
pub const TUNNEL_PORT: u16 = 7100;
/// The ports at which an edge and the core serve metrics, as in [`super::KEYS`].
pub const ADMIN_PORTS: [u16; 2] = [9162, 9163];
/// Edges that a client is told at most, names ahead included: it keeps a link, or looks up the name, for each.
pub const MAX_CLIENT_EDGES: usize = 32;
/// URLs of a newer list at most: a client asks one after the other.
const MAX_LIST_URLS: usize = 8;

/// Every key of the file, in the order of the reference.
pub static TOPOLOGY_KEYS: LazyLock<Vec<Key>> = LazyLock::new(Topology::keys);

section! {
    /// The hosts of a set-up, and its game servers.
    #[derive(Debug, Clone, PartialEq)]
    pub struct Topology from TopologyKeys {
        /// the hosts that players connect to; at least one
        edges: Vec<TopologyEdge> = items().required("[{ name: waw1, address: 198.51.100.7 }]"),
        /// `core`
        core: TopologyCore = mapping(),
        /// the tunnel's port: at the edges, or with `mode: accept` at the core
        tunnel_port: u16 = value(PORT).or("7100"),
        /// the game server's login and status, as seen from the core
        login: HostPort = value(TARGET).or("127.0.0.1:7171"),
        /// the game server's status, as seen from the core, where it has a port of its own; edges take it at the same port
        status: Option<HostPort> = value(TARGET).optional("at `login`").example("127.0.0.1:7173"),
        /// the worlds; at least one
        worlds as "game_servers": Vec<World> = items().required("[{ port: 7172, address: \"127.0.0.1:7172\" }]"),
        /// the server that the game servers are: all settings for it follow from this
        profile as "game_server": GameServerProfile =
            word().or_else("`tfs14-otc`; with `player_address` `custom`", || GameServerProfile::Tfs14Otc).example("canary"),
        /// with `game_server: custom`, how the game servers are told players' addresses; `none` where they have no patch for it
        player_address: PlayerAddress = word().or("otc"),
        /// players whose clients know no links can play, over one edge: edges forward the worlds' ports
        players_without_links: bool =
            value(FLAG).or_else("`true` where logins tell them an edge's address: with `tfs14-otc`, `tfs16-otc`, `custom` with these forms, and `canary-860`, `tvp`, `unpatched`", || true),
        /// names ahead in the clients' list, which go on from those of the edges; a DNS record then makes one an edge
        spares as "spare_names": Option<u32> = value(COUNT).optional("none").example("8"),
        /// where clients find a newer list of the edges, tried in turn
        list_urls: Vec<String> =
            list(URL).or_else("with `web`, the edges' own: `http://EDGE:8080/proxies/NAME`", Vec::new).example("[\"https://www.example/edges.json\"]"),
        /// `web`: what edges answer over HTTP, where they do
        web: Option<TopologyWeb> = mapping().optional(),
    }
}

section! {
    /// `web`: what edges answer over HTTP.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct TopologyWeb {
        /// with `web` each edge serves the list of edges, at `/proxies/NAME` with this name, and who is online, at `/status`
        list: String = value(LABEL).required("myot"),
        /// the port at which edges take HTTP; below 1024 it takes a privilege
        port: u16 = value(PORT).or("8080"),
        /// the login service over HTTP, as seen from the core; edges take logins for it at `/login` and `/login.php`
        login: Option<HostPort> = value(TARGET).optional("no logins over HTTP").example("127.0.0.1:80"),
    }
}

section! {
    /// `edges[]`: a host that players connect to.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct TopologyEdge from TopologyEdgeKeys {
        /// how the edge is called everywhere, its certificate included; unique
        name: Name = certified_name().required("waw1"),
        /// the edge's host; with `core.mode: accept` an address
        address: String = value(ADDRESS_OR_HOST).required("198.51.100.7"),
        /// what clients are told; a name with one address, as they try no other
        public: String = value(ADDRESS_OR_HOST).or_else("`edges[].address`", String::new).example("p1.example"),
        /// what clients add to the round trip over this edge before they choose, in ms
        priority: u16 = value(MILLISECONDS).or("0"),
        /// the same while the edge loses links as under an attack, in ms
        priority_under_attack: Option<u16> =
            value(MILLISECONDS).optional("100 more than `edges[].priority`").example("500"),
        /// has clients told of this edge only while others are out or hit, one for each
        reserve: bool = value(FLAG).or("false"),
        /// the place that edges share which fail together: each player is told to use them one after the other
        datacenter: Option<String> = value(LABEL).optional("a place of its own").example("waw"),
        /// `traffic`: what its provider allows in a month
        traffic: Option<EdgeTraffic> = mapping().optional(),
        /// where `otproxy deploy` reaches the edge's host, as in `admin@p1.example:2222`
        ssh: Option<SshTarget> =
            value(SSH).optional("`root` at `edges[].address`").example("root@198.51.100.7:22"),
        /// the edge is given up: the core refuses it, and clients are not told of it
        revoked: bool = value(FLAG).or("false"),
    }
}

section! {
    /// `core`: the core's host.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct TopologyCore from TopologyCoreKeys {
        /// `dial`: the core connects to the edges, has no open port and may be behind NAT; `accept`: the edges connect to it
        mode: CoreMode = word().or("dial"),
        // Always there with `mode: accept`.
        /// the core's host; with `mode: dial` it is only in the commands that copy files there
        address: Option<String> =
            value(ADDRESS_OR_HOST).optional("not needed with `mode: dial`").example("core.example"),
        /// where `otproxy deploy` reaches the core's host
        ssh: Option<SshTarget> =
            value(SSH).optional("`root` at `core.address`").example("root@core.example:22"),
    }
}

section! {
    /// `game_servers[]`: a world.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct World {
        /// the world's port, as clients ask for it; unique
        port: u16 = value(PORT).unique().required("7172"),
        /// the world's game server, as seen from the core
        address: HostPort = value(TARGET).required("127.0.0.1:7172"),
        /// the world's name, for comments
        name: Option<String> = value(TITLE).optional("no name").example("Antica"),
    }
}

words! {
    /// `core.mode`: the side that opens the tunnel's connections.
    #[derive(clap::ValueEnum)]
    pub enum CoreMode {
        /// The core connects to the edges.
        Dial = "dial",
        /// The edges connect to the core.
        Accept = "accept",
    }
}

impl Topology {
    /// Returns the settings for the game servers.
    #[must_use]
    pub fn settings(&self) -> GameServerSettings {
        self.profile.settings(self.player_address)
    }

    /// Returns where clients find a newer list of the edges: what the file says, or else each edge, where edges serve it.
    #[must_use]
    pub fn newer_lists(&self) -> Vec<String> {
        let Some(web) = self.web.as_ref().filter(|_| self.list_urls.is_empty()) else { return self.list_urls.clone() };
        let told = self.told().filter(|edge| edge.public.parse::<Ipv6Addr>().is_err());
        told.take(MAX_LIST_URLS)
            .map(|edge| format!("http://{}:{}{LISTS_PATH}{}", edge.public, web.port, web.list))
            .collect()
    }

    /// Returns the worlds whose ports edges forward, for players without links.
    pub fn forwarded_worlds(&self) -> impl Iterator<Item = &World> {
        let taken = |port| {
            let status = self.status.as_ref().is_some_and(|status| status.port == port);
            status || port == self.tunnel_port || taken(port)
        };
        self.worlds.iter().filter(move |world| self.players_without_links && !taken(world.port))
    }

    /// Returns the edges that are not given up.
    pub fn live(&self) -> impl Iterator<Item = &TopologyEdge> {
        self.edges.iter().filter(|edge| !edge.revoked)
    }

    /// Returns those of them that clients are told of while all is well.
    pub fn told(&self) -> impl Iterator<Item = &TopologyEdge> {
        self.live().filter(|edge| !edge.reserve)
    }

    /// Returns the names ahead that clients are told.
    #[must_use]
    pub fn spare_names(&self) -> Vec<String> {
        // The reader has checked that there are such names.
        self.spares.and_then(|count| spare_names(&self.edges, count).ok()).unwrap_or_default()
    }
}

impl World {
    /// Returns the name of the listeners for its players without links.
    #[must_use]
    pub fn listener(&self) -> String {
        format!("game-{}", self.port)
    }

    /// Returns whether its game server is on the core's host, on IPv4's loopback.
    #[must_use]
    pub fn is_on_loopback(&self) -> bool {
        self.address.is_ipv4_loopback()
    }
}

/// Reads and checks the file at `path`.
///
/// # Errors
///
/// Everything that is wrong with it, or that it could not be read.
pub fn load_topology(path: &Path) -> Result<Topology, ConfigErrors> {
    let (file, text) = text_of(path)?;
    parse_topology(&file, &text)
}

/// Reads and checks `text`, which errors call `file`.
///
/// # Errors
///
/// Everything that is wrong with it.
pub fn parse_topology(file: &str, text: &str) -> Result<Topology, ConfigErrors> {
    let shape = ("the smallest topology has `edges` and `game_servers`", "`edges:`");
    document(file, text, shape, |report, at, entries| {
        // No key here is for one role alone.
        topology(&Scope::root(report, &TOPOLOGY_KEYS, RoleKind::Core, at, entries))
    })
}

fn topology(root: &Scope<'_>) -> Option<Topology> {
    let mut keys = TopologyKeys::read(root);
    if root.has_empty_list("edges") {
        root.wrong("edges", "is an empty list; give at least one, as in `- { name: waw1, address: 198.51.100.7 }`");
    }
    if root.has_empty_list("game_servers") {
        root.wrong(
            "game_servers",
            "is an empty list; give at least one, as in `- { port: 7172, address: \"127.0.0.1:7172\" }`",
        );
    }
    if let Some(port) = keys.tunnel_port.filter(|port| taken(*port)) {
        root.wrong("tunnel_port", format!("`{port}` is used by otproxy itself; choose another, as 7100"));
    }
    if root.has("player_address") {
        if !root.has("game_server") {
            keys.profile = Some(GameServerProfile::Custom);
        } else if let Some(profile) = keys.profile.filter(|profile| *profile != GameServerProfile::Custom) {
            root.wrong(
                "player_address",
                format!("follows from `game_server: {profile}`; leave it out, or give `game_server: custom`"),
            );
        }
    }
    if !root.has("players_without_links")
        && let (Some(profile), Some(told)) = (keys.profile, keys.player_address)
    {
        keys.players_without_links = Some(profile.settings(told).lets_others_play());
    }
    if keys.status.as_ref().is_some_and(|status| *status == keys.login) {
        keys.status = Some(None);
    }
    if let Some(Some(status)) = &keys.status
        && (taken(status.port) || keys.tunnel_port == Some(status.port))
    {
        let message = format!(
            "`{status}`: edges have port {} for something else, and take the status at the port that it has; give the server another \
             port for it, or leave this out if the status is at `login`",
            status.port
        );
        root.wrong("status", message);
    }
    if let (Some(Some(web)), Some(worlds)) = (&keys.web, &keys.worlds) {
        let status = keys.status.as_ref().and_then(Option::as_ref).map(|status| status.port);
        let used = taken(web.port)
            || keys.tunnel_port == Some(web.port)
            || status == Some(web.port)
            || worlds.iter().any(|world| world.port == web.port);
        if used {
            root.wrong(
                "web",
                format!("`port: {}`: edges have that port for something else; choose another, as 8080", web.port),
            );
        }
    }
    if keys.list_urls.as_ref().is_some_and(|urls| urls.len() > MAX_LIST_URLS) {
        root.wrong("list_urls", format!("has too many; {MAX_LIST_URLS} are the most"));
    }
    if let (Some(edges), Some(spares)) = (&keys.edges, keys.spares) {
        told_to_clients(root, edges, spares);
    }
    keys.complete()
}

/// Checks what clients are told: the edges, and the names ahead.
fn told_to_clients(root: &Scope<'_>, edges: &[TopologyEdge], spares: Option<u32>) {
    let live = edges.iter().filter(|edge| !edge.revoked).count();
    if live > 0 && edges.iter().filter(|edge| !edge.revoked).all(|edge| edge.reserve) {
        root.wrong("edges", "each one is a `reserve`, so that clients would be told of none; take it from one of them");
    }
    let most = MAX_CLIENT_EDGES.saturating_sub(live);
    let spares_fit = spares.is_none_or(|spares| usize::try_from(spares).is_ok_and(|spares| spares <= most));
    if live > MAX_CLIENT_EDGES {
        root.wrong("edges", format!("{live} edges are too many for a client; {MAX_CLIENT_EDGES} are the most"));
    } else if !spares_fit {
        let message = format!("too many: clients take {MAX_CLIENT_EDGES} edges, so with yours {most} are the most");
        root.wrong("spare_names", message);
    } else if let Some(Err(message)) = spares.map(|count| spare_names(edges, count)) {
        root.wrong("spare_names", message);
    }
}

impl Read for TopologyCore {
    fn read(core: &Scope<'_>) -> Option<Self> {
        let keys = TopologyCoreKeys::read(core);
        if keys.mode == Some(CoreMode::Accept) && !core.has("address") {
            core.wrong(
                "address",
                "is missing: with `mode: accept` the edges connect there; as in `address: core.example`",
            );
        }
        keys.complete()
    }
}

impl Read for TopologyEdge {
    fn read(item: &Scope<'_>) -> Option<Self> {
        let mut keys = TopologyEdgeKeys::read(item);
        if let Some(host) = &keys.address {
            // Another edge may have come in the place of one that is given up.
            if keys.revoked != Some(true) {
                item.claim_own("address", host.clone());
            }
            if core_accepts(item) && host.parse::<IpAddr>().is_err() {
                let message = format!(
                    "`{host}` is a name, and the core's firewall lets in addresses; give the address here, and the name as `public`"
                );
                item.wrong("address", message);
            }
        }
        if !item.has("public") {
            keys.public.clone_from(&keys.address);
        }
        if keys.public.as_ref().is_some_and(|public| public.parse::<Ipv6Addr>().is_ok()) {
            let reserve = (keys.reserve == Some(true)).then_some("reserve");
            let of_clients = ["priority_under_attack", "datacenter"].into_iter().filter(|key| item.has(key));
            for key in of_clients.chain(reserve) {
                let message = "is about what clients are told of this edge, and they cannot take an IPv6 address; give it a name as `public`";
                item.wrong(key, message);
            }
        }
        keys.complete()
    }
}

/// Declares the name of an edge, which is also that of its certificate.
fn certified_name() -> Takes<Name> {
    let text = name(|_| true);
    text.and_then(|name| Name::edge(&name).ok())
}

/// Returns whether the edges connect to the core, which then has an open port.
fn core_accepts(item: &Scope<'_>) -> bool {
    item.file_word("core", "mode") == Some(CoreMode::Accept.as_str())
}

/// Returns whether the generated files use this port already.
fn taken(port: u16) -> bool {
    [LINKS_PORT, LOGIN_PORT].contains(&port) || ADMIN_PORTS.contains(&port)
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
        assert_eq!(topology.forwarded_worlds().map(World::listener).collect::<Vec<_>>(), ["game-7172"]);
        assert_eq!((topology.core.mode, topology.core.address, topology.tunnel_port), (CoreMode::Dial, None, 7100));
        assert_eq!((topology.login.to_string().as_str(), topology.tunnel_port), ("127.0.0.1:7171", TUNNEL_PORT));
        assert_eq!(topology.status, None);
        assert_eq!(topology.edges[0].public, "198.51.100.7");
        assert_eq!((topology.worlds[0].port, &topology.worlds[0].name), (7172, &None));
        assert_eq!((topology.profile, topology.player_address), (GameServerProfile::Tfs14Otc, PlayerAddress::Otc));
    }

    #[test]
    fn a_status_at_a_port_of_its_own() {
        let parse = |more: &str| {
            let text = format!(
                "edges: [{{ name: waw1, address: 198.51.100.7 }}]\ngame_servers: [{{ port: 7172, address: '127.0.0.1:7172' }}]\n{more}"
            );
            parse_topology("t.yaml", &text).map(|topology| topology.status.map(|status| status.to_string()))
        };
        assert_eq!(parse("status: '127.0.0.1:7173'\n"), Ok(Some("127.0.0.1:7173".to_owned())));
        assert_eq!(parse("status: '127.0.0.1:7171'\n"), Ok(None), "it is the login's");
        for taken in
            ["status: '127.0.0.1:7162'", "login: '127.0.0.1:7170'\nstatus: '127.0.0.1:7171'", "status: 'a:7100'"]
        {
            let errors = parse(taken).expect_err(taken).to_string();
            assert!(errors.contains("status: `") && errors.contains("give the server another port for it"), "{errors}");
        }
    }

    #[test]
    fn a_profile_and_the_form_of_an_address() {
        let parse = |more: &str| {
            let text = format!(
                "edges: [{{ name: waw1, address: 198.51.100.7 }}]\ngame_servers: [{{ port: 7172, address: '127.0.0.1:7172' }}]\n{more}"
            );
            parse_topology("t.yaml", &text)
        };
        for (more, profile, forwarded) in [
            ("player_address: none", GameServerProfile::Custom, false),
            ("player_address: otc", GameServerProfile::Custom, true),
            ("{game_server: custom, player_address: none}", GameServerProfile::Custom, false),
            ("game_server: tfs16-otc", GameServerProfile::Tfs16Otc, true),
            ("game_server: canary", GameServerProfile::Canary, false),
            ("game_server: unpatched", GameServerProfile::Unpatched, true),
            ("{game_server: canary, players_without_links: true}", GameServerProfile::Canary, true),
            ("players_without_links: false", GameServerProfile::Tfs14Otc, false),
        ] {
            let lines = more.trim_matches(['{', '}']).replace(", ", "\n");
            let topology = parse(&lines).unwrap_or_else(|errors| panic!("{errors}"));
            assert_eq!((topology.profile, topology.players_without_links), (profile, forwarded), "{more}");
        }
        let errors = parse("game_server: canary\nplayer_address: none").expect_err("both").to_string();
        assert!(errors.contains("player_address: follows from `game_server: canary`; leave it out"), "{errors}");
    }

    #[test]
    fn a_world_at_a_port_that_edges_have_for_something_else_is_not_forwarded() {
        let text = "edges: [{ name: waw1, address: 198.51.100.7 }]\nstatus: '127.0.0.1:7175'\ngame_servers:\n";
        let worlds: String =
            [7171, 7175, 7100, 9162, 7173].map(|port| format!("- {{ port: {port}, address: 'a:{port}' }}\n")).concat();
        let topology =
            parse_topology("t.yaml", &(text.to_owned() + &worlds)).unwrap_or_else(|errors| panic!("{errors}"));
        assert_eq!(topology.forwarded_worlds().map(|world| world.port).collect::<Vec<_>>(), [7173]);
    }

    #[test]
    fn edges_serve_the_list_where_the_topology_says_so() {
        let parse = |more: &str| {
            let text = format!(
                "edges: [{{ name: a, address: 198.51.100.7, public: p1.example }}, {{ name: b, address: '2001:db8::7' }}, \
                 {{ name: c, address: 198.51.100.9, revoked: true }}]\ngame_servers: [{{ port: 7172, address: '127.0.0.1:7172' }}]\n{more}"
            );
            parse_topology("t.yaml", &text).map_err(|errors| errors.to_string())
        };
        assert_eq!(parse("web: { list: myot }").unwrap().newer_lists(), ["http://p1.example:8080/proxies/myot"]);
        let own = "list_urls: http://www.example/e.json\n";
        assert_eq!(parse(&format!("{own}web: {{ list: a }}")).unwrap().newer_lists(), ["http://www.example/e.json"]);
        assert!(parse("").unwrap().newer_lists().is_empty());
        for (port, more) in [(7162, ""), (7171, ""), (7172, ""), (7100, ""), (9162, ""), (7173, "status: 'a:7173'\n")] {
            let error = parse(&format!("{more}web: {{ list: a, port: {port} }}")).expect_err("taken");
            assert!(
                error.contains(&format!("web: `port: {port}`: edges have that port for something else")),
                "{error}"
            );
        }
    }

    #[test]
    fn a_reserve_is_there_and_clients_are_not_told_of_it() {
        let parse = |edges: &str| {
            let text = format!(
                "edges: [{edges}]\ngame_servers: [{{ port: 7172, address: '127.0.0.1:7172' }}]\nweb: {{ list: a }}\n"
            );
            parse_topology("t.yaml", &text).map_err(|errors| errors.to_string())
        };
        let topology = parse(
            "{ name: a, address: p1.example, priority: 20 }, { name: b, address: p2.example, reserve: true, datacenter: waw }",
        );
        let topology = topology.unwrap();
        assert_eq!((topology.live().count(), topology.told().count()), (2, 1));
        assert_eq!(topology.newer_lists(), ["http://p1.example:8080/proxies/a"]);
        for (edges, says) in [
            ("{ name: a, address: p1.example, reserve: true }", "edges: each one is a `reserve`"),
            (
                "{ name: a, address: '2001:db8::7', datacenter: waw }",
                "edges[0].datacenter: is about what clients are told of this edge, and they cannot take an IPv6 address",
            ),
            ("{ name: a, address: p1.example, traffic: { soft: 80% } }", "edges[0].traffic.month: is required"),
        ] {
            let error = parse(edges).expect_err(says);
            assert!(error.contains(says), "{error}");
        }
    }

    #[test]
    fn clients_are_told_no_more_than_they_take() {
        let parse = |edges: u32, more: &str| {
            let edge = |n: u32| {
                format!("  - {{ name: e{n}, address: 198.51.100.{n}, public: p{n}.example, revoked: {} }}\n", n == 1)
            };
            let edges: String = (1..=edges).map(edge).collect();
            let text = format!("edges:\n{edges}game_servers: [{{ port: 7172, address: '127.0.0.1:7172' }}]\n{more}");
            parse_topology("t.yaml", &text).map_err(|errors| errors.to_string())
        };
        let topology = parse(3, "spare_names: 2\nlist_urls: http://www.example/e.json\n").unwrap();
        assert_eq!(topology.spare_names(), ["p4.example", "p5.example"]);
        assert_eq!(topology.list_urls, ["http://www.example/e.json"]);
        assert_eq!(topology.live().count(), 2);
        assert_eq!(parse(3, "").unwrap().spare_names(), [""; 0]);
        assert_eq!(parse(33, "").unwrap().live().count(), MAX_CLIENT_EDGES);
        assert_eq!(parse(31, "spare_names: 2").unwrap().spare_names().len(), 2);
        let urls = format!("list_urls: [{}]", ["'https://a.example/'"; MAX_LIST_URLS + 1].join(", "));
        for (edges, more, says) in [
            (34, "", "edges: 33 edges are too many for a client; 32 are the most"),
            (31, "spare_names: 3", "spare_names: too many: clients take 32 edges, so with yours 2 are the most"),
            (3, "spare_names: 0", "spare_names: must not be 0"),
            (1, "spare_names: 1", "spare_names: every edge is revoked"),
            (3, urls.as_str(), "list_urls: has too many; 8 are the most"),
            (3, "list_urls: 'ftp://a.example'", "list_urls: `ftp://a.example` is not a URL"),
        ] {
            let error = parse(edges, more).expect_err(says);
            assert!(error.contains(says), "{error}");
        }
    }

    #[test]
    fn the_ports_of_the_admin_are_the_defaults() {
        let listen = KEYS.iter().find(|key| key.path == "admin.listen").expect("a key");
        let defaults = [RoleKind::Edge, RoleKind::Core].map(|role| listen.default_for(role, None).expect("a default"));
        assert_eq!(defaults, ADMIN_PORTS.map(|port| format!("127.0.0.1:{port}")));
    }
}
