//! The options of a player: its paths and its clocks.

use std::net::{IpAddr, SocketAddr};

use bytes::Bytes;

use crate::frame::ClientId;

use super::clocks::{ClientClocks, LINKS_PER_SESSION};

/// A path that a player can take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathOptions {
    /// The edge, or the core itself.
    pub addr: SocketAddr,
    /// The operator's priority: milliseconds added to the measured ping.
    pub priority_ms: u32,
    /// The address to connect from, where it matters.
    pub local: Option<IpAddr>,
    /// Bytes sent first on each connection: a PROXY header, where there is no edge to send it.
    pub preface: Bytes,
}

impl PathOptions {
    /// Makes a path to `addr`, with no priority and nothing special about it.
    pub fn new(addr: SocketAddr) -> Self {
        Self { addr, priority_ms: 0, local: None, preface: Bytes::new() }
    }
}

/// The options of a player.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlayerOptions {
    /// Its id: one for each client process.
    pub client_id: ClientId,
    /// Its paths; one link on each.
    pub paths: Vec<PathOptions>,
    /// The number of links that carry a session at once.
    pub links_per_session: usize,
    /// Its clocks.
    pub clocks: ClientClocks,
}

impl PlayerOptions {
    /// Makes the options of a player with the clients' own values, on plain paths to `paths`.
    pub fn new(client_id: ClientId, paths: impl IntoIterator<Item = SocketAddr>) -> Self {
        Self {
            client_id,
            paths: paths.into_iter().map(PathOptions::new).collect(),
            links_per_session: LINKS_PER_SESSION,
            clocks: ClientClocks::default(),
        }
    }
}
