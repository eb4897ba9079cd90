//! A whole file: its keys by role, and reading it.

use std::path::Path;
use std::sync::LazyLock;

use ipnet::IpNet;

use super::address::reserve;
use super::declare::{Field as _, Read as _, Section as _, section};
use super::document::{document, text_of};
use super::edges::EdgePeer;
use super::error::ConfigErrors;
use super::fleet::FleetConfig;
use super::formats::FLAG;
use super::game_server::GameServerConfig;
use super::key::{Key, ListenerType, RoleKind};
use super::listener::{self, ListenerConfig};
use super::mapping::{elsewhere, mapping};
use super::process::ProcessConfig;
use super::proxies_table::ProxiesTable;
use super::scope::Scope;
use super::sessions::SessionsConfig;
use super::takes::{items, value};
use super::tree::Entry;
use super::tunnel::{CoreTunnel, EdgeTunnel, TlsFiles};
use super::web_report::WebReport;
use super::{takes, word};

/// A checked configuration file, by its role.
#[derive(Debug, Clone, PartialEq)]
#[expect(clippy::large_enum_variant, reason = "there is one, and it is moved with each reload alone")]
pub enum Config {
    /// `role: edge`
    Edge(EdgeConfig),
    /// `role: core`
    Core(CoreConfig),
}

section! {
    /// An edge: forwards connections to the core.
    #[derive(Debug, Clone, PartialEq)]
    pub struct EdgeConfig from EdgeKeys {
        /// The keys that both roles have.
        process: ProcessConfig = elsewhere(),
        /// `listeners`
        listeners: Vec<ListenerConfig> = elsewhere(),
        /// `core`: the tunnel to the core, where there is one.
        tunnel as "core": Option<EdgeTunnel> = mapping().optional(),
        /// whether logs of this edge may show the address of the core that it has a tunnel to
        log_core_address: bool = value(FLAG).or("false").restart(),
    }
}

section! {
    /// The core: relays sessions to the game servers, and forwards login and status.
    #[derive(Debug, Clone, PartialEq)]
    pub struct CoreConfig from CoreKeys {
        /// The keys that both roles have.
        process: ProcessConfig = elsewhere(),
        /// `listeners`
        listeners: Vec<ListenerConfig> = elsewhere(),
        /// `tunnel`: the end of the tunnel that edges reach with certificates, where there is one.
        tunnel: Option<CoreTunnel> = mapping().optional(),
        /// the edges that the core knows; links of other peers carry the label `other`
        edges: Vec<EdgePeer> = items().or("[]"),
        /// the ports that clients may ask for; required with a `relay` listener
        game_servers: Vec<GameServerConfig> =
            items().or("[]").example("[{ port: 7172, address: \"127.0.0.1:7172\" }]"),
        /// `fleet`: how edges are judged, and how many clients are told of.
        fleet: FleetConfig = mapping(),
        /// `proxies_table`: the table of a database that is kept in step with the edges, where there is one.
        proxies_table: Option<ProxiesTable> = mapping().optional(),
        /// `sessions`
        sessions: SessionsConfig = mapping(),
    }
}

impl Config {
    /// Returns the files of the tunnel's identity, if there is a tunnel.
    #[must_use]
    pub fn tunnel_files(&self) -> Option<&TlsFiles> {
        match self {
            Self::Edge(edge) => edge.tunnel.as_ref().map(|tunnel| &tunnel.tls),
            Self::Core(core) => core.tunnel.as_ref().map(|tunnel| &tunnel.tls),
        }
    }
}

/// Every key of a role's file, in the order of the reference.
pub static KEYS: LazyLock<Vec<Key>> = LazyLock::new(|| {
    let role = takes::word::<RoleKind>().required("edge").keys("role", "what this process is");
    let edge = EdgeConfig::keys().into_iter().map(|key| key.only_in(RoleKind::Edge));
    let core = CoreConfig::keys().into_iter().map(|key| key.only_in(RoleKind::Core));
    role.into_iter().chain(ProcessConfig::keys()).chain(listener::keys()).chain(edge).chain(core).collect()
});

/// Reads and checks the file at `path`.
///
/// # Errors
///
/// Everything that is wrong with it, or that it could not be read.
pub fn load(path: &Path) -> Result<Config, ConfigErrors> {
    load_wanted(path, None)
}

/// Loads a file as [`load`] does, which must be that of an edge.
///
/// # Errors
///
/// Fails as [`load`] does; a file of the other role is an error at its `role`.
pub fn load_edge(path: &Path) -> Result<EdgeConfig, ConfigErrors> {
    match load_for(path, RoleKind::Edge)? {
        Config::Edge(edge) => Ok(edge),
        Config::Core(_) => Err(ConfigErrors::one(&path.display().to_string(), None, other_role(RoleKind::Edge))),
    }
}

/// Loads a file as [`load`] does, which must be that of a core.
///
/// # Errors
///
/// Fails as [`load`] does; a file of the other role is an error at its `role`.
pub fn load_core(path: &Path) -> Result<CoreConfig, ConfigErrors> {
    match load_for(path, RoleKind::Core)? {
        Config::Core(core) => Ok(core),
        Config::Edge(_) => Err(ConfigErrors::one(&path.display().to_string(), None, other_role(RoleKind::Core))),
    }
}

/// Reads and checks `text`, which errors call `file`. Paths in it stay as they are written, and the files of
/// `deny` and `allow` are not read.
///
/// # Errors
///
/// Everything that is wrong with it.
pub fn parse(file: &str, text: &str) -> Result<Config, ConfigErrors> {
    parse_for(file, text, None, None)
}

/// Loads a file as [`load`] does, which must be that of this role.
///
/// # Errors
///
/// Fails as [`load`] does; a file of the other role is an error at its `role`.
pub fn load_for(path: &Path, role: RoleKind) -> Result<Config, ConfigErrors> {
    load_wanted(path, Some(role))
}

fn load_wanted(path: &Path, wanted: Option<RoleKind>) -> Result<Config, ConfigErrors> {
    let (file, text) = text_of(path)?;
    let folder = path.parent().unwrap_or(Path::new(""));
    parse_for(&file, &text, wanted, Some(folder))
}

/// Parses a file for a role. `folder` is the file's own; without one, no other files are read.
fn parse_for(file: &str, text: &str, wanted: Option<RoleKind>, folder: Option<&Path>) -> Result<Config, ConfigErrors> {
    let shape = ("the smallest file has `role` and `listeners`", "`role: edge` or `role: core`");
    document(file, text, shape, |report, at, entries| {
        let guess = guess_role(entries, wanted);
        let scope = Scope::root(report, &KEYS, guess, at, entries).in_folder(folder);
        match role(&scope, wanted).unwrap_or(guess) {
            RoleKind::Edge => edge(&scope).map(Config::Edge),
            RoleKind::Core => self::core(&scope).map(Config::Core),
        }
    })
}

/// Guesses the role of a file, right or not, so that all the rest of it can be checked too.
fn guess_role(entries: &[Entry], wanted: Option<RoleKind>) -> RoleKind {
    let written = entries.iter().find(|entry| entry.key == "role").and_then(|entry| word::word(&entry.node).ok());
    let core_only = |entry: &Entry| KEYS.iter().any(|key| key.path == entry.key && key.role == Some(RoleKind::Core));
    let implied = entries.iter().any(core_only).then_some(RoleKind::Core);
    written.or(wanted).or(implied).unwrap_or(RoleKind::Edge)
}

fn role(root: &Scope<'_>, wanted: Option<RoleKind>) -> Option<RoleKind> {
    let role = root.value("role", word::word)?;
    if let Some(wanted) = wanted.filter(|wanted| *wanted != role) {
        root.wrong("role", other_role(wanted));
    }
    Some(role)
}

fn other_role(wanted: RoleKind) -> String {
    let other = match wanted {
        RoleKind::Edge => RoleKind::Core,
        RoleKind::Core => RoleKind::Edge,
    };
    format!("`{other}` is not what `otproxy {wanted}` runs; use `otproxy {other}`, or give it the file of the {wanted}")
}

fn edge(root: &Scope<'_>) -> Option<EdgeConfig> {
    let process = ProcessConfig::read(root);
    let mut keys = EdgeKeys::read(root);
    reserve(root, "admin.listen", process.iter().filter_map(|process| process.admin.listen));
    reserve(root, "core.accept", keys.tunnel.iter().flatten().flat_map(|tunnel| tunnel.accept.iter().copied()));
    let mut listeners = listener::read(root, Some(&[]))?;
    let mut process = process?;
    WebReport::place(process.report.as_ref(), &mut listeners);
    process.report.iter().for_each(|report| report.check_listeners(root, &listeners));
    process.bans.exempt.extend(listeners.iter().flat_map(|listener| &listener.inbound().trusted_peers));
    (keys.process, keys.listeners) = (Some(process), Some(listeners));
    keys.complete()
}

fn core(root: &Scope<'_>) -> Option<CoreConfig> {
    let process = ProcessConfig::read(root);
    let mut keys = CoreKeys::read(root);
    reserve(root, "admin.listen", process.iter().filter_map(|process| process.admin.listen));
    reserve(root, "tunnel.accept", keys.tunnel.iter().flatten().flat_map(|tunnel| tunnel.accept.iter().copied()));
    if let (Some(Some(tunnel)), Some(edges)) = (&keys.tunnel, &keys.edges) {
        tunnel.check_users(root, edges);
    }
    if let (Some(fleet), Some(edges)) = (&keys.fleet, &keys.edges) {
        fleet.check(root, edges);
    }
    let trusted = keys.edges.as_ref().map(|edges| {
        let trusted = edges.iter().filter(|edge| !edge.revoked);
        trusted.flat_map(|edge| edge.addresses.iter().copied()).collect::<Vec<IpNet>>()
    });
    let listeners = listener::read(root, trusted.as_deref());
    let relay = listeners.iter().flatten().any(|listener| listener.inbound().kind == ListenerType::Relay);
    if relay && keys.game_servers.as_ref().is_some_and(Vec::is_empty) {
        root.wrong(
            "game_servers",
            "is missing: a listener of `kind: relay` needs it; as in `- { port: 7172, address: \"127.0.0.1:7172\" }`",
        );
    }
    let (mut process, mut listeners, trusted) = (process?, listeners?, trusted?);
    WebReport::place(process.report.as_ref(), &mut listeners);
    process.report.iter().for_each(|report| report.check_listeners(root, &listeners));
    process.bans.exempt.extend(listeners.iter().flat_map(|listener| &listener.inbound().trusted_peers).chain(&trusted));
    (keys.process, keys.listeners) = (Some(process), Some(listeners));
    keys.complete()
}
