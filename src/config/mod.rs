//! The configuration: YAML in, checked values out.
//!
//! The types here are what the rest of the program works with; nothing in them can be wrong any
//! more. Reading and checking is in the submodules.

use std::fmt;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

use crate::admission::{Access, BanRules, GateLimits};
use otproxy_protocol::rate::Rate;

mod address;
mod admin;
mod bans;
mod core;
mod error;
mod formats;
mod gate;
mod keys;
mod listener;
pub mod name;
mod read;
mod reference;
mod restart;
mod scope;
mod summary;
mod topology;
mod tree;
mod tunnel;

pub use address::network_text as network;
pub use admin::SOCKET as ADMIN_SOCKET;
pub use error::{ConfigError, Errors, Location};
pub use gate::MAX_LIST_LEN;
pub use keys::{KEYS, Key, Kind, Role, WhenAbsent};
pub use read::{MAX_FILE_LEN, load, load_core, load_edge, load_for, parse};
pub use reference::{tables, topology_table};
pub use restart::NEEDS_RESTART;
pub use topology::{
    ADMIN_PORTS, CoreMode, LINKS_PORT, LOGIN_PORT, TOPOLOGY_KEYS, Topology, TopologyEdge, World, load_topology,
    parse_topology,
};
pub use tunnel::CORE_NAME;

pub use otproxy_protocol::game_packet::Framing;
pub use otproxy_protocol::player_address::PlayerAddress;
pub use otproxy_protocol::sniff::Expect;

/// A checked configuration file, by its role.
#[derive(Debug, Clone, PartialEq)]
pub enum Config {
    /// `role: edge`
    Edge(Edge),
    /// `role: core`
    Core(Core),
}

/// An edge: forwards connections to the core.
#[derive(Debug, Clone, PartialEq)]
pub struct Edge {
    /// What both roles have.
    pub process: Process,
    /// What it listens on.
    pub listeners: Vec<Forward>,
    /// `core`: the tunnel to the core, where there is one.
    pub tunnel: Option<EdgeTunnel>,
}

/// The core: relays sessions to the game servers, and forwards login and status.
#[derive(Debug, Clone, PartialEq)]
pub struct Core {
    /// What both roles have.
    pub process: Process,
    /// The edges it knows, for trust and for labels.
    pub edges: Vec<EdgePeer>,
    /// `tunnel`: what edges reach it through with certificates, where there is one.
    pub tunnel: Option<CoreTunnel>,
    /// Listeners of kind `forward`.
    pub forwards: Vec<Forward>,
    /// Listeners of kind `relay`.
    pub relays: Vec<Relay>,
    /// The game servers that sessions may lead to.
    pub game_servers: Vec<GameServer>,
    /// Limits and times of sessions.
    pub sessions: Sessions,
}

/// What both roles have in common.
#[derive(Debug, Clone, PartialEq)]
pub struct Process {
    /// `name`: how this process calls itself.
    pub name: String,
    /// `workers`: threads that carry traffic.
    pub workers: NonZeroUsize,
    /// `admin.*`
    pub admin: Admin,
    /// `deny`, `allow`: who may connect to any listener.
    pub access: Arc<Access>,
    /// `limits`: of all listeners together.
    pub limits: GateLimits,
    /// `bans`: who is refused for a while.
    pub bans: Bans,
    /// `shutdown_timeout`: how long connections may go on after SIGTERM.
    pub shutdown_timeout: Duration,
    /// `log.format`
    pub log_format: LogFormat,
    /// `log.level`
    pub log_level: LogLevel,
    /// `access_log`; `None` for `file: off`.
    pub access_log: Option<AccessLog>,
}

/// `admin.*`: where metrics, health and the admin API are, and who may use it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Admin {
    /// `admin.listen`; `None` for `off`.
    pub listen: Option<SocketAddr>,
    /// `admin.socket`; `None` for `off`.
    pub socket: Option<PathBuf>,
    /// `admin.token_file`: who has this token may act and read.
    pub token_file: Option<PathBuf>,
    /// `admin.read_token_file`: who has this token may read.
    pub read_token_file: Option<PathBuf>,
    /// `admin.tls`: what `admin.listen` speaks, where it is not plain.
    pub tls: Option<AdminTls>,
}

/// `admin.tls`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdminTls {
    /// `cert`: the certificate and what it was issued with, PEM.
    pub cert: PathBuf,
    /// `key`: its private key, PEM.
    pub key: PathBuf,
    /// `client_ca`: the authorities that the clients' certificates must come from, PEM; `None` lets in who has none.
    pub client_ca: Option<PathBuf>,
}

/// `bans.*`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bans {
    /// `bans.after`: how often one address may break the rules.
    pub after: Option<Rate>,
    /// `bans.for`: how long who does it more often is banned, not 0.
    pub lasting: Duration,
    /// `bans.exempt`: who is refused for no ban. With it all peers that are trusted: they are no players.
    pub exempt: Vec<IpNet>,
    /// `bans.nftables`
    pub nftables: Option<NftTable>,
}

impl Bans {
    /// Nobody is banned but by the operator.
    pub const OFF: Self =
        Self { after: None, lasting: Duration::from_secs(10 * 60), exempt: Vec::new(), nftables: None };

    /// The part that says who is banned.
    pub fn rules(&self) -> BanRules {
        BanRules { after: self.after, lasting: self.lasting, exempt: self.exempt.iter().copied().collect() }
    }
}

/// `bans.nftables`: a table of nftables. Both are words that nft takes as they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NftTable {
    /// `inet`, `ip`, `ip6` or `netdev`.
    pub family: String,
    /// Its name.
    pub name: String,
}

impl fmt::Display for NftTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.family, self.name)
    }
}

/// `log.format`, `--log-format`
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// Text on a terminal, JSON otherwise.
    Auto,
    /// One line for people.
    Text,
    /// One JSON object a line.
    Json,
}

/// `log.level`, `--log-level`
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum LogLevel {
    /// Only what needs a person.
    Error,
    /// Also hostile peers and limits.
    Warn,
    /// Also one line for each connection and session at its end.
    Info,
    /// Also each link and connect.
    Debug,
    /// Everything.
    Trace,
}

/// `access_log.*`: one line for each connection and session that ended or was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccessLog {
    /// `access_log.format`
    pub format: AccessLogFormat,
    /// `access_log.file`
    pub file: AccessLogFile,
}

/// `access_log.format`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AccessLogFormat {
    /// One JSON object a line.
    Json,
    /// `key=value` for people.
    Text,
    /// The `tcplog` line of HAProxy.
    Haproxy,
}

/// `access_log.file`
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AccessLogFile {
    /// Where the other logs go.
    Stderr,
    /// A file, which is made where it is not there.
    Path(PathBuf),
}

/// What every listener has.
#[derive(Debug, Clone, PartialEq)]
pub struct Inbound {
    /// `name`: unique; the label in metrics and logs.
    pub name: String,
    /// `listen`: at least one address, except at a core with a tunnel.
    pub listen: Vec<SocketAddr>,
    /// `accept_proxy`
    pub accept_proxy: AcceptProxy,
    /// `trusted_peers`: whose PROXY header is believed.
    pub trusted_peers: Vec<IpNet>,
    /// `deny`, `allow`: who may connect to this listener.
    pub access: Arc<Access>,
    /// `limits`: of this listener.
    pub limits: GateLimits,
    /// `limits.reset`: refused connections are reset, rather than closed.
    pub reset: bool,
    /// `expect`: how connections begin; `Any` on a relay, which looks by itself.
    pub expect: Expect,
    /// `timeouts.first_bytes`: for what is expected to arrive whole.
    pub first_bytes_timeout: Duration,
    /// `timeouts.header`: for a PROXY header to arrive whole.
    pub header_timeout: Duration,
    /// `timeouts.idle`
    pub idle_timeout: Duration,
    /// `timeouts.connect`: to reach a target or a game server.
    pub connect_timeout: Duration,
}

/// A listener of kind `forward`.
#[derive(Debug, Clone, PartialEq)]
pub struct Forward {
    /// What every listener has.
    pub inbound: Inbound,
    /// `forward_to`: at least one.
    pub forward_to: Vec<ForwardTarget>,
    /// `choice`: which of them.
    pub choice: Choice,
    /// `check`: whether they are up.
    pub check: Check,
    /// `resolve`: how often their names are looked up; zero is for each connection.
    pub resolve: Duration,
    /// `send_proxy`
    pub send_proxy: SendProxy,
    /// `status`: requests for the status are answered here.
    pub status: Option<Status>,
}

/// `listeners[].forward_to[]`: one target of a listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForwardTarget {
    /// `name`: unique in its listener; the label in metrics and logs.
    pub name: String,
    /// `address`
    pub destination: Destination,
    /// `backup`: it has connections only while no other is up.
    pub backup: bool,
}

/// `listeners[].choice`: which of several targets a connection leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Choice {
    /// The first that is up.
    First,
    /// The one with the fewest connections now.
    Least,
    /// One for each player's address.
    Source,
}

/// `listeners[].check`, with the keys beside it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Check {
    /// `check`
    pub kind: CheckKind,
    /// `inter`: from one check of a target to the next, not 0.
    pub inter: Duration,
    /// `fall`: failures until a target is down, not 0.
    pub fall: u32,
    /// `rise`: checks passed until it is up again, not 0.
    pub rise: u32,
}

impl Check {
    /// None, and a target that failed is tried last for a while.
    pub const OFF: Self = Self { kind: CheckKind::Off, inter: Duration::ZERO, fall: 1, rise: 1 };
}

/// `listeners[].check`: how targets are checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CheckKind {
    /// They are not.
    Off,
    /// By a connect.
    Tcp,
    /// By a connect, and a PROXY v2 header that means a check.
    Proxy,
    /// By a ping of the multi-path protocol.
    Ping,
}

/// `listeners[].status`: answers to requests for the status, kept and refreshed from the target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// `status.cache`: how long an answer is given without asking the target again, not 0.
    pub cache: Duration,
    /// `status.stale`: how long after that it is given while the target has no answer.
    pub stale: Duration,
    /// `status.address`: a name or an address, which answers show in place of the game server's.
    pub address: String,
    /// `status.port`: likewise; `None` leaves it as it is.
    pub port: Option<u16>,
}

/// A listener of kind `relay`: links of the multi-path protocol.
#[derive(Debug, Clone, PartialEq)]
pub struct Relay {
    /// What every listener has.
    pub inbound: Inbound,
}

/// A host, by name or address, and a port. An IPv6 host is kept without brackets.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Target {
    /// Name or address.
    pub host: String,
    /// Port, not 0.
    pub port: u16,
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

impl Target {
    /// The address where the host is one, and no name.
    pub fn literal(&self) -> Option<SocketAddr> {
        self.host.parse().ok().map(|ip| SocketAddr::new(ip, self.port))
    }
}

impl From<SocketAddr> for Target {
    fn from(addr: SocketAddr) -> Self {
        Self { host: addr.ip().to_string(), port: addr.port() }
    }
}

/// `listeners[].accept_proxy`: the PROXY header expected from the peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AcceptProxy {
    /// A header from a trusted peer, or the connection is refused.
    Required,
    /// A header where a trusted peer sends one.
    Optional,
    /// No header: the first byte is the player's.
    None,
}

/// `listeners[].send_proxy`: the PROXY header sent to the target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SendProxy {
    /// The binary header.
    V2,
    /// The text line.
    V1,
    /// No header.
    None,
}

/// Where a connection of a forward leads.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Destination {
    /// A host and a port.
    Target(Target),
    /// `core/NAME`: a listener of the core, by its name, through the tunnel.
    Core(String),
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Target(target) => target.fmt(f),
            Self::Core(listener) => write!(f, "{CORE_PREFIX}{listener}"),
        }
    }
}

/// How a destination begins that is a listener of the core.
const CORE_PREFIX: &str = "core/";

/// `core.*` of an edge: its end of the tunnel.
#[derive(Debug, Clone, PartialEq)]
pub struct EdgeTunnel {
    /// `core.dial` or `core.accept`.
    pub reach: Reach,
    /// `core.tls`
    pub tls: TlsFiles,
    /// `log_core_address`: whether the core's address may stand in logs.
    pub log_core_address: bool,
}

/// Which side of the tunnel connects.
#[derive(Debug, Clone, PartialEq)]
pub enum Reach {
    /// The edge connects to the core.
    Dial {
        /// `core.dial`
        core: Target,
        /// `core.spare`: connections kept ready, not 0.
        spare: usize,
    },
    /// `core.accept`: the core connects to the edge, here.
    Accept(Vec<SocketAddr>),
}

/// `tunnel.*` of the core: its end of the tunnels.
#[derive(Debug, Clone, PartialEq)]
pub struct CoreTunnel {
    /// `tunnel.accept`: where edges connect; none where the core dials all of them.
    pub accept: Vec<SocketAddr>,
    /// `tunnel.tls`
    pub tls: TlsFiles,
    /// `tunnel.spare`: connections kept ready at each edge that the core dials, not 0.
    pub spare: usize,
}

/// The files that one end of the tunnel proves itself with, and knows the other by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// Certificates of the authorities that the other side's must come from, PEM.
    pub ca: PathBuf,
    /// The own certificate, PEM.
    pub cert: PathBuf,
    /// Its private key, PEM.
    pub key: PathBuf,
}

/// `edges[]`: who may connect to the core, and the label of their links.
#[derive(Debug, Clone, PartialEq)]
pub struct EdgePeer {
    /// `name`: unique; the label in metrics and logs, and the name in the edge's certificate.
    pub name: String,
    /// `address`: at least one network, except where there is a tunnel; a single address is a network of one.
    pub addresses: Vec<IpNet>,
    /// `dial`: where the core connects to this edge for the tunnel.
    pub dial: Option<Target>,
    /// `revoked`: it is refused, with its address and its certificate.
    pub revoked: bool,
}

/// `game_servers[]`: a port that clients may ask for, and where it leads.
#[derive(Debug, Clone, PartialEq)]
pub struct GameServer {
    /// `port`: unique, not 0.
    pub port: u16,
    /// `address`
    pub address: Target,
    /// `player_address`
    pub player_address: PlayerAddress,
    /// `framing`
    pub framing: Framing,
    /// `max_packets_per_second`: towards the game server, not 0.
    pub max_packets_per_second: Option<u32>,
    /// `connects_per_second`: to the game server, evenly spread, not 0.
    pub connects_per_second: Option<u32>,
    /// `source`
    pub source: Source,
    /// `ipv6_players`
    pub ipv6_players: Ipv6Players,
}

/// `game_servers[].source`: the local address of connections to the game server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// As the kernel chooses.
    Default,
    /// An address in 127.0.0.0/8 for each player.
    LoopbackPerPlayer,
}

/// `game_servers[].ipv6_players`: what becomes of players that have no IPv4 address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ipv6Players {
    /// They get one in 240.0.0.0/4, stable for their /64.
    PseudoIpv4,
    /// They are refused.
    Refuse,
}

/// `sessions.*`
#[derive(Debug, Clone, PartialEq)]
pub struct Sessions {
    /// `sessions.bind_sessions`
    pub bind_sessions: BindSessions,
    /// `sessions.linger`: how long a session without links lives on.
    pub linger: Duration,
    /// `sessions.leave_grace`: after the last link left.
    pub leave_grace: Duration,
    /// `sessions.max_per_address`
    pub max_per_address: usize,
    /// `sessions.max`
    pub max: usize,
    /// `sessions.max_per_link`
    pub max_per_link: usize,
    /// `sessions.opens_per_address`: new sessions, by player address.
    pub opens_per_address: Option<Rate>,
    /// `sessions.unacked`: bytes kept for replay, for each session.
    pub unacked: usize,
    /// `sessions.reorder`: bytes kept ahead of their turn, for each session.
    pub reorder: usize,
    /// `sessions.pending`: bytes that wait for the game server, for each session.
    pub pending: usize,
}

/// `sessions.bind_sessions`: what a link must share with a session to join it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BindSessions {
    /// Client id and player address.
    Address,
    /// Client id alone.
    Client,
}
