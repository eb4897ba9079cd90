//! The configuration files.
//!
//! Names are quoted: an edge may be called `true`.

use std::fmt::Write;
use std::net::{IpAddr, Ipv6Addr};

use super::host::Host;
use otproxy_config::{
    CoreMode, EdgeTraffic, Framing, GameServerSettings, HostPort, LINKS_PORT, LOGIN_PORT, PlayerAddress, Topology,
    TopologyEdge, World,
};

/// Returns `edge.yaml` or `core.yaml`.
pub(super) fn of_host(topology: &Topology, host: &Host<'_>) -> String {
    match host {
        Host::Core => core(topology),
        Host::Edge(edge) => self::edge(topology, edge),
    }
}

fn edge(topology: &Topology, edge: &TopologyEdge) -> String {
    let name = &edge.name;
    let reach = match (topology.core.mode, &topology.core.address) {
        (CoreMode::Accept, Some(core)) => {
            let core = HostPort { host: core.clone(), port: topology.tunnel_port };
            format!("core:\n  dial: \"{core}\"\n")
        }
        _ => format!(
            "# The core connects to this edge: where the core is stands in no file here.\ncore:\n  accept: {}\n",
            listen(topology.tunnel_port)
        ),
    };
    format!(
        "\
# The edge {name}: takes players' connections and leads them to the core. Made by `otproxy init`.
role: edge
name: \"{name}\"

# The tunnel: TLS to the core, with certificates on both sides.
{reach}  # Paths are seen from this file. They are reread when they change.
  tls: {{ ca: ca.pem, cert: \"{name}.pem\", key: \"{name}.key\" }}

# An address that breaks the rules too often is refused for a while: far more often than a carrier with many players behind one
# address, some of whom a limit keeps out. With `nftables: inet otproxy` the kernel drops what it sends; docs/security.md says
# what that takes.
bans: {{ after: 600/60s, for: 10m }}

# All listen on IPv4 and on IPv6; on a host without IPv6 on IPv4 alone.
listeners:
  # Links of clients that know the multi-path protocol; what begins otherwise goes no further. A client has one to each
  # edge: 20 leaves room for households, and for carriers that put many players behind one address.
  - name: links
    listen: {links}
    forward_to: core/links
    expect: links
    limits: {{ connections_per_address: 20, rate_per_address: {LINKS_RATE} }}
{login}{games}",
        links = listen(LINKS_PORT),
        login = logins(topology, edge),
        games = games(topology) + &web(topology),
    )
}

/// Returns the listener for HTTP, where edges have one.
fn web(topology: &Topology) -> String {
    let Some(web) = &topology.web else { return String::new() };
    format!(
        "  # HTTP, for clients and web sites: the list of edges, and who is online. The core answers, and this edge keeps the answers.
  - name: web
    kind: web
    listen: {}
    forward_to: core/web
    limits: {{ connections_per_address: 20, rate_per_address: {LOGIN_RATE} }}
",
        listen(web.port)
    )
}

/// New links of one address, in a time: after a cut, households come back with all their links at once.
const LINKS_RATE: &str = "40/10s";
/// New logins, status requests, games and requests over HTTP of one address, likewise.
const LOGIN_RATE: &str = "20/10s";

/// Returns the listeners for logins and status requests.
fn logins(topology: &Topology, edge: &TopologyEdge) -> String {
    let limits = format!("limits: {{ connections_per_address: 20, rate_per_address: {LOGIN_RATE} }}");
    let (login, public) = (listen(LOGIN_PORT), &edge.public);
    let Some(status) = &topology.status else {
        return format!(
            "  # Login of other clients, and status requests of server lists: those are answered here, with this edge's address in
  # place of the game server's own.
  - name: login
    listen: {login}
    forward_to: core/login
    expect: login
    status: {{ address: \"{public}\" }}
    {limits}
"
        );
    };
    format!(
        "  # Login of other clients.
  - name: login
    listen: {login}
    forward_to: core/login
    expect: login
    {limits}
  # Status requests of server lists, at the port that the game server has for them: they are answered here, with this edge's
  # address in place of the game server's own.
  - name: status
    listen: {at}
    forward_to: core/status
    expect: status
    status: {{ address: \"{public}\" }}
    {limits}
",
        at = listen(status.port),
    )
}

/// Returns the listeners for games of players without links.
fn games(topology: &Topology) -> String {
    let mut lines = String::new();
    for world in topology.forwarded_worlds() {
        if lines.is_empty() {
            lines += "  # Games of players whose clients know no links: they have this edge alone.\n";
        }
        let _ = writeln!(
            lines,
            "  - name: {name}
    listen: {listen}
    forward_to: core/{name}
    limits: {{ connections_per_address: 20, rate_per_address: {LOGIN_RATE} }}",
            name = world.listener(),
            listen = listen(world.port),
        );
    }
    lines
}

/// Returns the addresses of all of IPv4 and of all of IPv6.
fn listen(port: u16) -> String {
    format!("[\"0.0.0.0:{port}\", \"[::]:{port}\"]")
}

fn core(topology: &Topology) -> String {
    let port = topology.tunnel_port;
    let reach = match topology.core.mode {
        CoreMode::Dial => "\
# The tunnel: TLS to the edges, with certificates on both sides. The core connects to each edge: no port is open here.
tunnel:
"
        .to_owned(),
        CoreMode::Accept => format!(
            "\
# The tunnel: TLS to the edges, with certificates on both sides. The edges connect here.
tunnel:
  accept: {}
",
            listen(port)
        ),
    };
    let mut edges = String::new();
    for edge in &topology.edges {
        let dial = match topology.core.mode {
            CoreMode::Dial => {
                format!(", dial: \"{}\"", HostPort { host: edge.address.clone(), port })
            }
            CoreMode::Accept => String::new(),
        };
        // Clients are not told of an edge that is given up, and cannot take an IPv6 address.
        let told = !edge.revoked && edge.public.parse::<Ipv6Addr>().is_err();
        let public = if told { format!(", public: \"{}\"", edge.public) } else { String::new() };
        let revoked = if edge.revoked { ", revoked: true" } else { "" };
        let judged = if edge.revoked { String::new() } else { judged(edge) };
        let _ = writeln!(edges, "  - {{ name: \"{}\"{dial}{public}{judged}{revoked} }}", edge.name);
    }
    let known = status_for_web(topology);
    format!(
        "\
# The core: joins the links of each player and leads them to the game servers. Made by `otproxy init`.
role: core

{reach}  # Paths are seen from this file. They are reread when they change.
  tls: {{ ca: ca.pem, cert: core.pem, key: core.key }}

# Each edge proves its name with its certificate. `revoked: true` refuses it at once.
edges:
{edges}
# The metrics of the edges are there beside the core's own, for one Prometheus on this host: see prometheus.yml.
admin: {{ edges_metrics: true }}

# All are reached through the tunnel alone.
listeners:
  - name: links
    kind: relay
  - name: login
    forward_to: \"{login}\"
    # How the login server is told the player's address: v2, v2_reversed, v1 or none.
{login_source}{status}{games}{sessions}
# The only ports that clients can reach over links. player_address says how a game server is told the player's address: otc
# with the OTC proxy patch, otc_reversed with its TFS 1.6 branch, proxy_v2 or proxy_v1, none without a patch. A stock TFS 1.6
# or later takes all addresses for one, and blocks it when some connect at once: give it connects: 1/600ms.
game_servers:
{game_servers}",
        login = topology.login,
        login_source = told(topology, &topology.login) + edges_in_logins(topology) + if topology.status.is_none() { &known } else { "" },
        status = topology.status.as_ref().map_or_else(String::new, |status| {
            format!("  - name: status\n    forward_to: \"{status}\"\n{}{known}", told(topology, status))
        }),
        games = games_of_players_without_links(topology) + &web_of_core(topology),
        sessions = sessions(topology),
        game_servers = game_servers(topology),
    )
}

/// Returns the keys of an edge by which the core decides what clients are told of it.
fn judged(edge: &TopologyEdge) -> String {
    let mut keys = String::new();
    if edge.priority > 0 {
        let _ = write!(keys, ", priority: {}", edge.priority);
    }
    if let Some(priority) = edge.priority_under_attack {
        let _ = write!(keys, ", priority_under_attack: {priority}");
    }
    if edge.reserve {
        keys += ", reserve: true";
    }
    if let Some(datacenter) = &edge.datacenter {
        let _ = write!(keys, ", datacenter: \"{datacenter}\"");
    }
    if let Some(EdgeTraffic { month, soft, count, day }) = edge.traffic {
        let _ = write!(keys, ", traffic: {{ month: {}, soft: {soft}%, count: {count}, day: {day} }}", size(month));
    }
    keys
}

/// Returns a size as a provider writes it, exactly.
fn size(bytes: u64) -> String {
    let units = [("TiB", 1 << 40), ("GiB", 1 << 30), ("TB", 1_000_000_000_000), ("GB", 1_000_000_000)];
    let unit = units.iter().find(|(_, unit)| bytes.is_multiple_of(*unit));
    unit.map_or_else(|| bytes.to_string(), |(name, unit)| format!("{}{name}", bytes / unit))
}

/// Returns the lines of a forward that say how its target learns players' addresses.
fn told(topology: &Topology, target: &HostPort) -> String {
    let source = if is_player_source(topology, target) { "    source: player\n" } else { "" };
    format!("    send_proxy: {}\n{source}", topology.settings().send_proxy)
}

/// Returns the lines that put the edges into answers to logins, for a server that knows nothing of them.
fn edges_in_logins(topology: &Topology) -> &'static str {
    if topology.settings().edges_in_logins {
        "    # Puts the edges into answers to logins: OTCv8 plays over links then, others over an edge. A server with a key of its own
    # needs `rsa_key: key.pem` here.
    login: { worlds: auto }
"
    } else {
        ""
    }
}

/// Returns the line that has a listener know the status, for the core's answers over HTTP.
fn status_for_web(topology: &Topology) -> String {
    let shown = topology.told().next().filter(|_| topology.web.is_some());
    shown.map_or_else(String::new, |edge| format!("    status: {{ address: \"{}\" }}\n", edge.public))
}

/// Returns the core's listener for HTTP, where edges have one.
fn web_of_core(topology: &Topology) -> String {
    let Some(web) = &topology.web else { return String::new() };
    let login = web.login.as_ref().map_or_else(String::new, |login| {
        format!(
            "    # The login service; it finds players' addresses in X-Forwarded-For.\n    forward_to: \"{login}\"\n"
        )
    });
    let mut routes = format!("proxies: [{{ name: \"{}\" }}]", web.list);
    if topology.told().next().is_some() {
        routes += if topology.status.is_some() { ", status: status" } else { ", status: login" };
    }
    if web.login.is_some() {
        routes += ", login: [/login, /login.php]";
    }
    format!(
        "  # HTTP, to which the edges lead: the list of edges for clients, and who is online.\n  - name: web\n    kind: web\n\
         {login}    routes: {{ {routes} }}\n"
    )
}

/// Returns the core's listeners for players without links.
fn games_of_players_without_links(topology: &Topology) -> String {
    let mut lines = String::new();
    for world in topology.forwarded_worlds() {
        if lines.is_empty() {
            lines += "  # Games of players without links, who play over one edge.\n";
        }
        let _ = write!(
            lines,
            "  - name: {}\n    forward_to: \"{}\"\n{}",
            world.listener(),
            world.address,
            told(topology, &world.address)
        );
    }
    lines
}

/// Returns the keys of sessions that matter where edges have addresses of both families.
fn sessions(topology: &Topology) -> &'static str {
    if !has_both_families(topology) {
        return "";
    }
    "
# Edges are told to clients by addresses of both IPv4 and IPv6: the links of one player come from two addresses then, and join by
# client and session id. `address` would keep one half of them out.
sessions: { bind_sessions: client }
"
}

/// Returns whether some edges are told to clients by an IPv4 address, and some by an IPv6 one.
pub(super) fn has_both_families(topology: &Topology) -> bool {
    let families: Vec<bool> =
        topology.live().filter_map(|edge| edge.public.parse().ok()).map(|ip: IpAddr| ip.is_ipv6()).collect();
    families.contains(&true) && families.contains(&false)
}

fn game_servers(topology: &Topology) -> String {
    let mut lines = String::new();
    let mut add = |what: &str, port: u16, address: &HostPort| {
        let GameServerSettings { player_address, framing, counts_all_as_one, .. } = topology.settings();
        let framing = match framing {
            Framing::Auto => String::new(),
            framing => format!(", framing: {framing}"),
        };
        // Otherwise all players have one address, and limits by address hold for all of them together.
        // On another host they all come from the core's, and a server without a patch blocks that when some come at once.
        let source = match player_address {
            PlayerAddress::None if is_player_source(topology, address) => ", source: player",
            PlayerAddress::None => ", connects: 1/600ms",
            _ if counts_all_as_one => ", connects: 1/600ms",
            _ => "",
        };
        let _ = writeln!(
            lines,
            "  # {what}.\n  - {{ port: {port}, address: \"{address}\", player_address: {player_address}{framing}{source}, check: tcp }}"
        );
    };
    let login = login(topology);
    if let Some(login) = &login {
        add("Login over links", login.port, &login.address);
    }
    for world in &topology.worlds {
        let what = world.name.as_ref().map_or_else(|| "A world".to_owned(), |name| format!("The world {name:?}"));
        add(&what, world.port, &world.address);
    }
    lines
}

/// Returns whether a server is connected to from players' own addresses: one on the core's host that reads no header.
fn is_player_source(topology: &Topology, server: &HostPort) -> bool {
    topology.settings().player_address == PlayerAddress::None && server.is_ipv4_loopback()
}

/// Returns whether any is.
pub(super) fn has_player_sources(topology: &Topology) -> bool {
    let worlds = topology.worlds.iter().map(|world| &world.address);
    worlds.chain([&topology.login]).chain(&topology.status).any(|server| is_player_source(topology, server))
}

/// Returns the login as a port that clients ask for; `None` if the topology has that port already.
pub(super) fn login(topology: &Topology) -> Option<World> {
    let port = topology.login.port;
    let there = topology.worlds.iter().any(|world| world.port == port);
    (!there).then(|| World { name: None, port, address: topology.login.clone() })
}
