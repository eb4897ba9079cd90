//! Sessions as an operator sees them.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Relay;
use super::session::Session;
use crate::connection::Presence;
use otproxy_protocol::core::{EndReason, Phase};
use otproxy_protocol::frame::{ClientId, SessionId};

/// One session, as it is at the moment.
#[derive(Debug, Clone)]
pub struct SessionView {
    /// Whose it is.
    pub client: ClientId,
    /// Its number.
    pub session: SessionId,
    /// The port that the client asked for.
    pub port: u16,
    /// The game server, as in the configuration.
    pub game_server: String,
    /// The player, as the link said that opened it.
    pub player: SocketAddr,
    /// How far it has come; a session that waits for its game server is so whatever its links do.
    pub phase: Phase,
    /// Whether the game server has not answered yet.
    pub connecting: bool,
    /// When it was opened.
    pub started: Instant,
    /// The links that carry it.
    pub links: Vec<LinkView>,
    /// Bytes kept for replay.
    pub unacked: usize,
    /// Bytes kept ahead of their turn.
    pub reorder: usize,
    /// Bytes that wait for the game server.
    pub pending: usize,
    /// Packets from the player, each once.
    pub packets_in: u32,
    /// Packets to the player, each once.
    pub packets_out: u32,
    /// Bytes of those packets from the player.
    pub bytes_in: u64,
    /// Bytes of those packets to the player.
    pub bytes_out: u64,
}

/// A link that carries a session.
#[derive(Debug, Clone)]
pub struct LinkView {
    /// Its connection.
    pub presence: Arc<Presence>,
    /// The last round trip that the client told.
    pub round_trip: Option<Duration>,
}

impl Relay {
    /// The sessions of this worker that `wanted` picks by client, session and player.
    pub fn sessions(&self, wanted: impl Fn(ClientId, SessionId, SocketAddr) -> bool) -> Vec<SessionView> {
        self.picked(wanted).iter().map(|session| session.view()).collect()
    }

    /// Ends the sessions of this worker that `wanted` picks; gives how many. Their clients are told.
    pub fn disconnect(&self, wanted: impl Fn(ClientId, SessionId, SocketAddr) -> bool) -> usize {
        let mut picked = self.picked(wanted);
        // One that has ended is there only to meet joins on their way.
        picked.retain(|session| !session.is_ended());
        picked.iter().for_each(|session| session.end(EndReason::Disconnected));
        picked.len()
    }

    fn picked(&self, wanted: impl Fn(ClientId, SessionId, SocketAddr) -> bool) -> Vec<Rc<Session>> {
        let sessions = self.sessions.borrow();
        let picked = sessions.values().filter(|session| {
            let (client, id) = session.key();
            wanted(client, id, session.player())
        });
        picked.cloned().collect()
    }
}
