//! Actions: the bodies of POST requests, and their results.

use std::path::Path;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{ApiError, EdgeOrder, ListenerState, Network, RevokedBy, Role, TargetState, Time};
use crate::admission;
use otproxy_protocol::frame::{ClientId, SessionId};

/// The longest duration of a ban, in seconds.
pub const LONGEST_BAN: u32 = admission::LONGEST_BAN.as_secs() as u32;
/// The longest deadline of a drain, in seconds.
pub const LONGEST_DRAIN: u32 = 24 * 60 * 60;

/// The longest time for which an operator's word on an edge holds, in seconds; without a time it holds until the next one.
pub const LONGEST_ORDER: u32 = 366 * 24 * 60 * 60;
/// Characters of the reason for it.
pub const LONGEST_WHY: usize = 200;
/// The edges that one request may have visited.
pub const MAX_VISITS: usize = 64;
/// The longest time for a visit, in milliseconds.
pub const LONGEST_VISIT: u32 = 5000;

/// An edge is to visit others, as a player's client does it: at an edge alone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(example = json!({ "edges": [{ "host": "p1.example", "port": 7162 }], "within_ms": 2000 }))]
pub struct ProbeRequest {
    /// Their addresses for players.
    #[schemars(length(max = MAX_VISITS))]
    pub edges: Vec<VisitedEdge>,
    /// The time for each of them, all at once.
    #[schemars(range(min = 1, max = LONGEST_VISIT))]
    pub within_ms: u32,
}

/// The address of an edge for players.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct VisitedEdge {
    /// Its name, or IP address.
    pub host: String,
    /// The port of links.
    pub port: u16,
}

/// The edges were visited.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Probed {
    /// The results, in the order of the request.
    pub edges: Vec<Visit>,
}

/// The result of a visit.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Visit {
    /// The round trip of a ping to the core and back.
    pub round_trip_seconds: Option<f64>,
    /// The word of the reason why there was none, as `otproxy ping --json` has it.
    pub error: Option<String>,
}

impl Eq for Visit {}

impl ProbeRequest {
    /// Returns the time for each visit.
    ///
    /// # Errors
    /// Fails if it is too long, or if they are too many.
    pub fn within(&self) -> Result<Duration, ApiError> {
        if self.edges.len() > MAX_VISITS {
            return Err(ApiError::invalid(format!("more than {MAX_VISITS} edges"), "ask for fewer at once"));
        }
        if !(1..=LONGEST_VISIT).contains(&self.within_ms) {
            let error = format!("`within_ms` is {}, which is not from 1 to {LONGEST_VISIT}", self.within_ms);
            return Err(ApiError::invalid(error, "give another time"));
        }
        Ok(Duration::from_millis(self.within_ms.into()))
    }
}

/// Everything is to be handed over to another process of otproxy, which waits for it. `otproxy upgrade` asks for this, and nobody else
/// has a use for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(example = json!({ "role": "core", "place": ".4711.up", "takes_socket": true }))]
pub struct UpgradeRequest {
    /// The role that it is to have.
    pub role: Role,
    /// The name of the unix socket at which it waits, in the folder of the one over which this is asked.
    pub place: String,
    /// True if its `admin.socket` is this one.
    pub takes_socket: bool,
}

impl UpgradeRequest {
    /// Returns the name of the socket.
    ///
    /// # Errors
    /// Fails if it leads out of the folder.
    pub fn place(&self) -> Result<&Path, ApiError> {
        let place = Path::new(&self.place);
        if place.file_name() == Some(place.as_os_str()) {
            return Ok(place);
        }
        Err(ApiError::invalid("`place` is not the name of a file", "give the name alone, without a folder"))
    }
}

/// It begins.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct UpgradeBegun {
    /// The process that hands over.
    pub pid: u32,
    /// Its version.
    pub version: String,
}

/// The file is to be read again.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ReloadRequest {}

/// The file was read again and is used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Reloaded {
    /// When.
    pub time: Time,
    /// Keys of the file that have changed and are used only after a restart.
    pub needs_restart: Vec<String>,
}

/// New connections are refused, and those that are there go on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(example = json!({ "listener": "login", "deadline_seconds": 300 }))]
pub struct DrainRequest {
    /// The listener; without it all of them, and `/ready` says no.
    pub listener: Option<String>,
    /// After so long those that are left are closed; without it they go on until they end.
    #[schemars(range(max = LONGEST_DRAIN))]
    pub deadline_seconds: Option<u32>,
    /// At a core: the edge that is to do it, in place of the core.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub edge: Option<String>,
}

impl DrainRequest {
    /// Returns the time after which remaining connections are closed.
    ///
    /// # Errors
    /// Fails if it is too long.
    pub fn deadline(&self) -> Result<Option<Duration>, ApiError> {
        seconds("deadline_seconds", self.deadline_seconds, 0, LONGEST_DRAIN)
    }
}

/// A drained listener takes connections again.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(example = json!({ "listener": "login" }), example = json!({}))]
pub struct UndrainRequest {
    /// The listener; without it all of them.
    pub listener: Option<String>,
    /// At a core: the edge that is to do it, in place of the core.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub edge: Option<String>,
}

/// The listeners after that.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Drained {
    /// The ones that were named.
    pub listeners: Vec<DrainedListener>,
}

/// One of these listeners.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DrainedListener {
    /// Its name.
    pub name: String,
    /// Its state: an open one takes connections.
    pub state: ListenerState,
    /// Connections now.
    pub connections: u64,
}

/// The request to ban a network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(example = json!({ "network": "198.51.100.0/24", "for_seconds": 600, "disconnect": true }))]
pub struct NewBan {
    /// The address or network.
    pub network: Network,
    /// For how long; without it for `bans.for`.
    #[schemars(range(min = 1, max = LONGEST_BAN))]
    pub for_seconds: Option<u32>,
    /// True to close what it has open as well.
    #[serde(default)]
    pub disconnect: bool,
}

impl NewBan {
    /// Returns the duration of the ban.
    ///
    /// # Errors
    /// Fails if it is zero or too long.
    pub fn lasts(&self) -> Result<Option<Duration>, ApiError> {
        seconds("for_seconds", self.for_seconds, 1, LONGEST_BAN)
    }
}

/// A ban that holds from now on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Banned {
    /// The address or network.
    pub network: Network,
    /// Its last moment.
    pub until: Time,
    /// The things that were closed, if that was asked for.
    pub disconnected: Disconnected,
    /// At a core: its edges, which ban it as well.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub edges: Vec<EdgeAnswer>,
}

/// The result of something that was to be done at an edge.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct EdgeAnswer {
    /// Its name.
    pub edge: String,
    /// Why it was not done there; `null` if it was.
    pub error: Option<String>,
}

/// Whose bans are to end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(example = json!({ "network": "198.51.100.0/24" }))]
pub struct UnbanRequest {
    /// Bans of this network, and of addresses in it, end.
    pub network: Network,
}

/// Bans that have ended.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Unbanned {
    /// Whose they were.
    pub networks: Vec<Network>,
    /// At a core: its edges, where they have ended as well.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub edges: Vec<EdgeAnswer>,
}

/// An edge is to be thrown out of a core, or let in again. A reload keeps it, a restart does not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(example = json!({ "edge": "waw1" }), example = json!({ "edge": "waw1", "undo": true }))]
pub struct RevokeRequest {
    /// Its name in `edges`.
    pub edge: String,
    /// True to let it in again.
    #[serde(default)]
    pub undo: bool,
}

/// The state of an edge after that.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Revoked {
    /// Its name.
    pub edge: String,
    /// The one that has it refused now; `null` if nobody has. If it is the operator alone, write `revoked: true` into the file as well, or
    /// a restart lets it in again.
    pub revoked_by: Option<RevokedBy>,
    /// Connections of players through it that were closed.
    pub connections: u64,
    /// Listeners that still believe a PROXY header from its address, as a network of their own `trusted_peers` has it.
    pub trusted_on: Vec<String>,
}

/// The request to decide about an edge by hand, or to leave it to the core again. It holds over restarts, if the core has a
/// `state_dir`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(
    example = json!({ "edge": "waw1", "order": "out", "for_seconds": 3600, "why": "the provider is at work" }),
    example = json!({ "edge": "waw1", "order": "auto" })
)]
pub struct EdgeRequest {
    /// Its name in `edges`.
    pub edge: String,
    /// The word on it.
    pub order: EdgeOrder,
    /// For how long; without it until there is another word.
    #[serde(default)]
    #[schemars(range(min = 1, max = LONGEST_ORDER))]
    pub for_seconds: Option<u32>,
    /// The reason, for those who read it.
    #[serde(default)]
    #[schemars(length(max = LONGEST_WHY))]
    pub why: Option<String>,
}

impl EdgeRequest {
    /// Returns for how long it holds.
    ///
    /// # Errors
    /// Fails if that, or the reason, is out of bounds, or there where it has no meaning.
    pub fn lasts(&self) -> Result<Option<Duration>, ApiError> {
        if self.why.as_ref().is_some_and(|why| why.chars().count() > LONGEST_WHY) {
            return Err(ApiError::invalid("`why` is too long", format!("give at most {LONGEST_WHY} characters")));
        }
        if self.order == EdgeOrder::Auto && (self.for_seconds.is_some() || self.why.is_some()) {
            return Err(ApiError::invalid(
                "`auto` ends what was said before, so there is no time and no reason for it",
                "leave out `for_seconds` and `why`",
            ));
        }
        seconds("for_seconds", self.for_seconds, 1, LONGEST_ORDER)
    }
}

/// The request to close something: a `connection`, all of a `listener`, all of an `address` (also of one `listener` alone), all of an
/// `edge`, all of a `client`, or one `session` of a `client`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(
    example = json!({ "connection": 7 }),
    example = json!({ "listener": "login" }),
    example = json!({ "address": "198.51.100.7", "listener": "login" }),
    example = json!({ "edge": "waw1" }),
    example = json!({ "client": 1, "session": 1 })
)]
pub struct DisconnectRequest {
    /// The `id` of a connection.
    pub connection: Option<u64>,
    /// A listener's name.
    pub listener: Option<String>,
    /// An address or a CIDR of players.
    pub address: Option<Network>,
    /// The name of an edge, at a core.
    pub edge: Option<String>,
    /// A client, with its links and sessions.
    pub client: Option<u32>,
    /// With `client`: this session of it, and no link.
    pub session: Option<u32>,
}

/// The things to be closed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Disconnect {
    /// The connection with this number. A session that it carries goes on over its other links.
    Connection(u64),
    /// All connections of a listener. Sessions that they carry live on for `sessions.linger`, or over other listeners.
    Listener(String),
    /// All connections of players in this network, and their sessions; if a listener is named, only its connections,
    /// and no session.
    Address(Network, Option<String>),
    /// All connections that came through an edge. Sessions that they carry live on, as with a listener.
    Edge(String),
    /// All links and sessions of a client.
    Client(ClientId),
    /// One session of a client, and no link.
    Session(ClientId, SessionId),
}

/// The things that were closed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Disconnected {
    /// Connections.
    pub connections: u64,
    /// Sessions.
    pub sessions: u64,
}

impl DisconnectRequest {
    /// Returns the one thing that the request names.
    ///
    /// # Errors
    /// Fails if it names nothing, or several things that do not go together.
    pub fn what(self) -> Result<Disconnect, ApiError> {
        let Self { connection, listener, address, edge, client, session } = self;
        match (connection, listener, address, edge, client, session) {
            (Some(id), None, None, None, None, None) => Ok(Disconnect::Connection(id)),
            (None, Some(listener), None, None, None, None) => Ok(Disconnect::Listener(listener)),
            (None, listener, Some(address), None, None, None) => Ok(Disconnect::Address(address, listener)),
            (None, None, None, Some(edge), None, None) => Ok(Disconnect::Edge(edge)),
            (None, None, None, None, Some(client), None) => Ok(Disconnect::Client(ClientId(client))),
            (None, None, None, None, Some(client), Some(session)) => {
                Ok(Disconnect::Session(ClientId(client), SessionId(session)))
            }
            _ => Err(ApiError::invalid(
                "it is not said what to disconnect",
                "give one of `connection`, `listener`, `address`, `edge`, `client`; a `session` goes with its `client`, and a \
                 `listener` may go with an `address`",
            )),
        }
    }
}

/// The state that is wanted of a target from now on. A reload keeps it, a restart does not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(example = json!({ "listener": "login", "target": "first", "state": "drain" }))]
pub struct TargetRequest {
    /// The listener's name.
    pub listener: String,
    /// The target's.
    pub target: String,
    /// The state.
    pub state: TargetState,
}

/// Returns a number of seconds as a duration, if it is within the bounds.
fn seconds(name: &str, seconds: Option<u32>, least: u32, most: u32) -> Result<Option<Duration>, ApiError> {
    match seconds {
        Some(seconds) if !(least..=most).contains(&seconds) => Err(ApiError::invalid(
            format!("`{name}` is {seconds}, and that is out of range"),
            format!("give a number from {least} to {most}, or leave it out"),
        )),
        seconds => Ok(seconds.map(|seconds| Duration::from_secs(seconds.into()))),
    }
}
