//! The configuration: YAML in, checked values out.
//!
//! Each mapping of the file is a struct, declared in the file of its name: `sessions` in `sessions.rs`, `listeners[]` in `inbound.rs`
//! and, by kind, `forward.rs`. There is all that one says about a key (`declare.rs` has how); nothing in a checked value can be wrong any more.
//!
//! From the bottom to the top, each uses only those before it:
//!
//! | files | hold |
//! |---|---|
//! | `error`, `tree` | what is wrong and where; YAML as a tree of which each node can be found again |
//! | `word`, `key`, `scope` | words of a fixed set; what there is to know of a key; reading the keys of one mapping |
//! | `declare`, `takes`, `mapping` | the declaration of a key |
//! | `memory`, `formats`, `address`, `address_set`, `access`, `name`, `source`, `ssh` | how values are written, and what `auto` is here |
//! | `sessions`, `game_server`, `edges`, `fleet`, `proxies_table`, `limits`, `log`, `admin`, `alerts`, `bans`, `process`, `tunnel`, `report`, `inbound`, `login`, `forward`, `web`, `web_report`, `listener` | the mappings of a file |
//! | `document`, `file`, `topology`, `spare_names` | whole files: those of the roles, and that of `init` with the names that follow its edges' |
//! | `reference`, `restart`, `revoke`, `stock_servers`, `summary` | what follows from it: the tables in the documents, what takes a restart, what is left when an edge is refused, what players of unpatched servers meet, the line of `check` |

mod access;
mod address;
mod address_set;
mod admin;
mod alerts;
mod bans;
mod declare;
mod document;
mod edges;
mod error;
mod file;
mod fleet;
mod formats;
mod forward;
mod game_server;
mod inbound;
mod key;
mod limits;
mod listener;
mod log;
mod login;
mod mapping;
mod memory;
pub mod name;
mod process;
mod profile;
mod proxies_table;
mod reference;
mod report;
mod restart;
mod revoke;
mod scope;
mod sessions;
mod source;
mod spare_names;
mod ssh;
mod stock_servers;
mod summary;
mod takes;
mod topology;
mod tree;
mod tunnel;
mod web;
mod web_report;
mod word;

pub use access::MAX_LIST_LEN;
pub use address::{Destination, HostPort, TargetHost, network_text as network};
pub use address_set::AddressSet;
pub use admin::{AdminConfig, AdminTlsConfig, SOCKET as ADMIN_SOCKET};
pub use alerts::{AlertFormat, AlertsConfig, WebhookConfig};
pub use bans::{BansConfig, NftTable};
pub use document::{MAX_FILE_LEN, without_byte_order_mark};
pub use edges::{EdgePeer, LINKS_PORT, MORE_WHEN_HIT};
pub use error::{ConfigError, ConfigErrors, Location};
pub use file::{Config, CoreConfig, EdgeConfig, KEYS, load, load_core, load_edge, load_for, parse};
pub use fleet::{CountedTraffic, EdgeTraffic, FleetConfig};
pub use forward::{
    CheckConfig, CheckKind, ForwardConfig, ForwardTarget, SendProxy, StatusConfig, StatusPlayers, TargetChoice,
};
pub use game_server::{GameServerCheck, GameServerConfig, Ipv6Players};
pub use inbound::{AcceptProxy, InboundConfig, Timeouts};
pub use key::{Key, ListenerType, RoleKind, WhenAbsent};
pub use limits::{ListenerLimits, ProcessLimits};
pub use listener::{ListenerConfig, RelayConfig};
pub use log::{AccessLogConfig, AccessLogFile, AccessLogFormat, LogConfig, LogFormat, LogLevel};
pub use login::{LoginConfig, MAX_KEY_LEN};
pub use memory::memory;
pub use name::CORE_NAME;
pub use process::{ProcessConfig, RestartMode};
pub use profile::{GameServerProfile, GameServerSettings};
pub use proxies_table::ProxiesTable;
pub use reference::{tables, topology_table};
pub use report::ReportConfig;
pub use restart::NEEDS_RESTART;
pub use sessions::{BindSessions, SessionsConfig};
pub use source::SourceAddress;
pub use ssh::{SshTarget, ssh_user};
pub use stock_servers::StockServerWarning;
pub use topology::{
    ADMIN_PORTS, CoreMode, GAME_PORT, LOGIN_PORT, MAX_CLIENT_EDGES, TOPOLOGY_KEYS, TUNNEL_PORT, Topology, TopologyCore,
    TopologyEdge, TopologyWeb, World, load_topology, parse_topology,
};
pub use tree::MAX_NODES;
pub use tunnel::{CoreTunnel, EdgeTunnel, Reach, TlsFiles};
pub use web::{
    ClassicLogins, LISTS_PATH, MAX_LISTS, RealIpConfig, STATUS_PATH, WebConfig, WebList, WebRoutes, WebTlsConfig,
};
pub use web_report::{REPORT_PATH, WebReport};

pub use otproxy_protocol::game_packet::Framing;
pub use otproxy_protocol::player_address::PlayerAddress;
pub use otproxy_protocol::sniff::ProtocolSniffer;
