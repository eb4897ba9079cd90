//! Views: the answers of GET requests.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    BannedBy, ConnectionState, EdgeOrder, EdgeState, ListenerKind, ListenerState, Network, RevokedBy, Role,
    SessionState, TargetState, Time,
};

/// How many there are, of how many there may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Count {
    /// Now.
    pub open: u64,
    /// At once; `null` where there is no limit.
    pub limit: Option<u64>,
}

/// The process as a whole.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "Status")]
pub struct StatusView {
    /// Its role.
    pub role: Role,
    /// `name` of the file.
    pub name: String,
    /// Of the program.
    pub version: String,
    /// The process' number.
    pub pid: u32,
    /// The time of its start.
    pub started: Time,
    /// Since then.
    pub uptime_seconds: u64,
    /// As `/ready` says it: it takes connections.
    pub ready: bool,
    /// The whole process is drained, or ends.
    pub draining: bool,
    /// Threads that carry traffic.
    pub workers: u64,
    /// Listeners, in whatever state.
    pub listeners: u64,
    /// On all listeners together.
    pub connections: Count,
    /// Of players with game servers; `null` on an edge, which knows of none.
    pub sessions: Option<Count>,
    /// Of its tunnel: an edge's to the core, or those of all edges. `null` without a tunnel.
    pub trunks: Option<u64>,
    /// Addresses and networks that are banned.
    pub bans: u64,
    /// Descriptors in use, and those that the system allows.
    pub files: Count,
    /// The last time that the file was read again; `null` before the first.
    pub last_reload: Option<ReloadView>,
}

/// The result of reading the file again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "Reload")]
pub struct ReloadView {
    /// Its time.
    pub time: Time,
    /// True if the file is used now. If not, all went on as before.
    pub ok: bool,
    /// Everything that was wrong, each with its place; empty if `ok`.
    pub errors: Vec<String>,
}

/// All listeners.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "Listeners")]
pub struct ListenersView {
    /// Forwards in the order of the file, then relays, then those that are not in it any more.
    pub listeners: Vec<ListenerView>,
}

/// One listener.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "Listener")]
pub struct ListenerView {
    /// Its name.
    pub name: String,
    /// Its kind.
    pub kind: ListenerKind,
    /// Its addresses; none where the tunnel is its only way in.
    pub addresses: Vec<SocketAddr>,
    /// Its state: an open one takes connections.
    pub state: ListenerState,
    /// Connections, and its own limit.
    pub connections: Count,
    /// Connections ever accepted.
    pub accepted: u64,
    /// Of those, refused, by the reasons of the metrics; what never happened is left out.
    pub rejected: BTreeMap<String, u64>,
    /// Of those, ended, likewise.
    pub closed: BTreeMap<String, u64>,
    /// From players, ever.
    pub bytes_in: u64,
    /// To players, ever.
    pub bytes_out: u64,
}

/// The targets of all listeners.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "Targets")]
pub struct TargetsView {
    /// In the order of the file.
    pub targets: Vec<TargetView>,
}

/// A host that a listener leads to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "Target")]
pub struct TargetView {
    /// The listener's name.
    pub listener: String,
    /// Its own name: where the file gives none, its place, from 1.
    pub name: String,
    /// As in the file.
    pub address: String,
    /// True if connections reach it, as far as that is known.
    pub up: bool,
    /// The state that an operator wants of it.
    pub state: TargetState,
    /// It has connections only while no other is up.
    pub backup: bool,
    /// Connections now.
    pub connections: u64,
    /// The last check; `null` where it is not checked, or not yet.
    pub check: Option<CheckView>,
}

/// The last check of a target.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "Check")]
pub struct CheckView {
    /// The word of the metrics: `ok`, `timeout`, ..
    pub result: String,
    /// Since it ended.
    pub age_seconds: f64,
    /// How long the answer took; `null` where it is not a ping, or was not answered.
    pub round_trip_seconds: Option<f64>,
}

/// Connections that are open.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "Connections")]
pub struct ConnectionsView {
    /// How many there are of those that were asked for.
    pub total: u64,
    /// Of these the newest, newest first; as many as were asked for.
    pub connections: Vec<ConnectionView>,
}

/// One open connection.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "Connection")]
pub struct ConnectionView {
    /// Its number in this process.
    pub id: u64,
    /// The listener that it came to.
    pub listener: String,
    /// The player, as far as that is known.
    pub player: Option<SocketAddr>,
    /// The peer: the player, or the one that announces the player in a PROXY header.
    pub peer: SocketAddr,
    /// The edge that it came through, where that is known.
    pub edge: Option<String>,
    /// Its state.
    pub state: ConnectionState,
    /// The name of its target; `null` for a link, and where it has none yet.
    pub target: Option<String>,
    /// The client, for a link.
    pub client: Option<u32>,
    /// Since it was accepted.
    pub age_seconds: f64,
    /// From the player.
    pub bytes_in: u64,
    /// To the player.
    pub bytes_out: u64,
}

/// Sessions of players with game servers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "Sessions")]
pub struct SessionsView {
    /// How many there are of those that were asked for.
    pub total: u64,
    /// Of these the newest, newest first; as many as were asked for.
    pub sessions: Vec<SessionView>,
}

/// One session.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "Session")]
pub struct SessionView {
    /// The client, as it names itself. A person may choose it.
    pub client: u32,
    /// The client's number for it.
    pub session: u32,
    /// The port that the client asked for.
    pub port: u16,
    /// The player, as the link said that opened it.
    pub player: SocketAddr,
    /// Its state.
    pub state: SessionState,
    /// Since it was opened.
    pub age_seconds: f64,
    /// The game server, as in the file.
    pub game_server: String,
    /// The links that carry it.
    pub links: Vec<SessionLinkView>,
    /// Kept for replay, until the client acknowledges it.
    pub unacked_bytes: u64,
    /// Kept ahead of its turn.
    pub reorder_bytes: u64,
    /// Waiting for the game server to take it.
    pub pending_bytes: u64,
    /// From the player, each once.
    pub packets_in: u64,
    /// To the player, each once.
    pub packets_out: u64,
    /// From the player, without what came twice.
    pub bytes_in: u64,
    /// To the player, likewise.
    pub bytes_out: u64,
}

/// A link that carries a session.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "SessionLink")]
pub struct SessionLinkView {
    /// The `id` of its connection.
    pub connection: u64,
    /// The edge that it came through; `null` where it is none that the core knows.
    pub edge: Option<String>,
    /// The player, as this link says.
    pub player: SocketAddr,
    /// Since it was accepted.
    pub age_seconds: f64,
    /// The last round trip that the client told; `null` before the first.
    pub round_trip_seconds: Option<f64>,
    /// From the player, of all sessions of the link.
    pub bytes_in: u64,
    /// To the player, likewise.
    pub bytes_out: u64,
}

/// All edges that the core knows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "Edges")]
pub struct EdgesView {
    /// In the order of the file.
    pub edges: Vec<EdgeView>,
}

/// An edge, as the core knows it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "Edge")]
pub struct EdgeView {
    /// `name` of it in the file, and in its certificate.
    pub name: String,
    /// True if it is refused.
    pub revoked: bool,
    /// The one that has it refused; `null` if nobody has. It is the file where both have, as that holds after a restart too.
    pub revoked_by: Option<RevokedBy>,
    /// Its state.
    pub state: EdgeState,
    /// The reason of its state, a word of docs/fleet.md.
    pub cause: String,
    /// The time from which on it is in that state.
    pub state_since: Time,
    /// Its address for clients, with the port; `null` if they are not told of it.
    pub public: Option<String>,
    /// True if clients are told of it now.
    pub listed: bool,
    /// Milliseconds that clients add to the round trip over it.
    pub priority: u16,
    /// The word of an operator on it, while it holds.
    pub order: Option<EdgeOrderView>,
    /// Links of players over it.
    pub links: u64,
    /// The middle one of the round trips that players told of late; `null` if none did.
    pub round_trip_seconds: Option<f64>,
    /// The last visits of other edges at its address for clients.
    pub probes: Vec<EdgeProbeView>,
    /// The traffic of this month; `null` if none is counted.
    pub traffic: Option<EdgeTrafficView>,
    /// The addresses from which it has connections now; without any, the last one. Where the core connects to it, its address.
    pub addresses: Vec<IpAddr>,
    /// Connections of players through it.
    pub in_use: u64,
    /// The trunks of its tunnel, the oldest first; `null` without a tunnel.
    pub trunks: Option<Vec<TrunkView>>,
    /// The time since which its tunnel has been up without a break; `null` where it is down, and without a tunnel.
    pub since: Option<Time>,
    /// The certificate that it proved itself with the last time; `null` before, and without a tunnel.
    pub certificate: Option<EdgeCertificateView>,
    /// The last time that a connection of its tunnel, or of somebody with its certificate, came to nothing.
    pub last_error: Option<EdgeErrorView>,
}

/// The word of an operator on an edge.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "EdgeOrderGiven")]
pub struct EdgeOrderView {
    /// The word.
    pub order: EdgeOrder,
    /// The time at which it was given.
    pub since: Time,
    /// Its last moment; `null` if it holds until another one.
    pub until: Option<Time>,
    /// The reason that was given.
    pub why: Option<String>,
}

/// The last visit of one edge at another, as a player's client makes it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "EdgeProbe")]
pub struct EdgeProbeView {
    /// The edge that visited.
    pub from: String,
    /// The round trip to the core and back; `null` if there was no answer.
    pub round_trip_seconds: Option<f64>,
}

/// The traffic of an edge's host in this month of its bill.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "EdgeTraffic")]
pub struct EdgeTrafficView {
    /// Bytes so far.
    pub bytes: u64,
    /// `traffic.month` of it.
    pub month_bytes: u64,
}

/// A trunk of an edge: a connection between it and the core.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "Trunk")]
pub struct TrunkView {
    /// The edge's address.
    pub address: IpAddr,
    /// The time of its handshake.
    pub since: Time,
    /// Links and forwarded connections that it carries now.
    pub streams: u64,
    /// Bytes that came from the edge, without those of TLS.
    pub bytes_in: u64,
    /// Bytes that went to the edge, likewise.
    pub bytes_out: u64,
    /// The last round trip; `null` before the first.
    pub round_trip_seconds: Option<f64>,
    /// The version of the edge's program.
    pub version: String,
    /// The certificate that the edge proved itself with.
    pub certificate: EdgeCertificateView,
}

/// A certificate of an edge.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "EdgeCertificate")]
pub struct EdgeCertificateView {
    /// Its serial number, as `otproxy cert show` has it.
    pub serial: String,
    /// The last moment at which it is valid.
    pub until: Time,
}

/// A connection of a tunnel that came to nothing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "EdgeError")]
pub struct EdgeErrorView {
    /// Its time.
    pub time: Time,
    /// The reason: a word of `otproxy_tunnel_handshakes_total`, `otproxy_tunnel_dials_total` or
    /// `otproxy_tunnel_streams_refused_total`.
    pub reason: String,
    /// The address; `null` where that is known already.
    pub address: Option<IpAddr>,
}

/// The addresses that have the most.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "Addresses")]
pub struct AddressesView {
    /// How many addresses have connections.
    pub total: u64,
    /// Of these the first; as many as were asked for.
    pub addresses: Vec<TalkerView>,
}

/// One player address, and what it has open.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "Talker")]
pub struct TalkerView {
    /// An IPv4 address, or the /64 of an IPv6 one. Before the player is known it is whoever connected.
    pub address: Network,
    /// Connections now.
    pub connections: u64,
    /// From there, over the connections of now.
    pub bytes_in: u64,
    /// To there, likewise.
    pub bytes_out: u64,
    /// True if it is banned: what it has open goes on then.
    pub banned: bool,
}

/// The bans.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "Bans")]
pub struct BansView {
    /// How many bans there are of those that were asked for.
    pub total: u64,
    /// True if bans are put into nftables too.
    pub nftables: bool,
    /// Of these the ones that last the longest, longest first; as many as were asked for.
    pub bans: Vec<BanView>,
}

/// One ban.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "Ban")]
pub struct BanView {
    /// The network.
    pub network: Network,
    /// The edge, or the trusted peer, through which alone it is refused, as what it did rests on that one's word; `null` if
    /// it is refused everywhere.
    pub edge: Option<String>,
    /// Its last moment.
    pub until: Time,
    /// Until then.
    pub seconds_left: u64,
    /// The one that banned it.
    pub by: BannedBy,
}

impl From<IpAddr> for Network {
    fn from(address: IpAddr) -> Self {
        Self(address.to_canonical().into())
    }
}

/// Bytes of the whole host, over its interfaces to the world.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TrafficView {
    /// The first day that counts, in UTC.
    pub since: Option<String>,
    /// Received by the host.
    pub bytes_in: u64,
    /// Sent by the host.
    pub bytes_out: u64,
}
