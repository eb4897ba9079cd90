//! Sessions as an operator sees them.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Relay;
use super::client::{RelayMachine, tell};
use super::link::RelayLink;
use crate::connection::ConnectionHandle;
use otproxy_protocol::core::{EndReason, SessionKey, SessionPhase};
use otproxy_protocol::frame::{ClientId, SessionId};

/// One session, as it is at the moment.
#[derive(Debug, Clone)]
pub struct SessionSnapshot {
    /// The client that it belongs to.
    pub client: ClientId,
    /// Its number.
    pub session: SessionId,
    /// The port that the client asked for.
    pub port: u16,
    /// The game server, as in the configuration.
    pub game_server: String,
    /// The player, as the link said that opened it.
    pub player: SocketAddr,
    /// Its phase; a session that waits for its game server is in it whatever its links do.
    pub phase: SessionPhase,
    /// The game server has not answered yet.
    pub connecting: bool,
    /// The time at which it was opened.
    pub started: Instant,
    /// The links that carry it.
    pub links: Vec<LinkSnapshot>,
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
pub struct LinkSnapshot {
    /// Its connection.
    pub handle: Arc<ConnectionHandle>,
    /// The last round trip that the client told.
    pub round_trip: Option<Duration>,
}

impl Relay {
    /// Returns the sessions of this worker that `wanted` picks by client, session and player.
    pub fn sessions(&self, wanted: impl Fn(ClientId, SessionId, SocketAddr) -> bool) -> Vec<SessionSnapshot> {
        let mut views = Vec::new();
        for client in self.clients.borrow().values() {
            let machine = client.machine.borrow();
            // What has ended and been accounted for is there only for its client.
            let picked = picked(&machine, client.id, &wanted).filter(|session| !machine.is_closed(*session));
            views.extend(picked.filter_map(|session| view(&machine, client.id, session)));
        }
        views
    }

    /// Returns the address of the player of each session of this worker.
    pub fn players(&self) -> Vec<IpAddr> {
        let mut players = Vec::new();
        for client in self.clients.borrow().values() {
            let machine = client.machine.borrow();
            let open = picked(&machine, client.id, &|_, _, _| true).filter(|session| !machine.is_closed(*session));
            players.extend(open.filter_map(|session| Some(machine.session(session)?.player.ip())));
        }
        players
    }

    /// Ends the sessions of this worker that `wanted` picks, and returns how many. Their clients are told.
    pub fn disconnect(&self, wanted: impl Fn(ClientId, SessionId, SocketAddr) -> bool) -> usize {
        let mut ended = 0;
        for client in self.clients.borrow().values() {
            let mut machine = client.machine.borrow_mut();
            // One that has ended is there only to meet joins on their way.
            let going_on = |session: &SessionKey| machine.ended(*session).is_none();
            let sessions: Vec<_> = picked(&machine, client.id, &wanted).filter(going_on).collect();
            for session in sessions {
                machine.end(session, EndReason::Disconnected);
                tell(&mut machine, session);
                ended += 1;
            }
        }
        ended
    }
}

fn picked(
    machine: &RelayMachine,
    client: ClientId,
    wanted: &impl Fn(ClientId, SessionId, SocketAddr) -> bool,
) -> impl Iterator<Item = SessionKey> {
    let sessions = machine.sessions().filter(move |(id, key)| {
        let session = machine.session(*key);
        session.is_some_and(|session| wanted(client, *id, session.player))
    });
    sessions.map(|(_, key)| key)
}

fn view(machine: &RelayMachine, client: ClientId, key: SessionKey) -> Option<SessionSnapshot> {
    let (session, figures) = (machine.session(key)?, machine.figures(key)?);
    let server = &session.server;
    let links = (0..).map_while(|number| machine.links_of(key, number)).filter_map(|link| machine.link(link));
    Some(SessionSnapshot {
        client,
        session: session.id,
        port: server.port,
        game_server: server.address.to_string(),
        player: session.player,
        phase: figures.phase,
        connecting: figures.connecting,
        started: session.started,
        links: links.map(|link| LinkSnapshot::of(link)).collect(),
        unacked: figures.unacked,
        reorder: figures.reorder,
        pending: figures.pending,
        packets_in: figures.packets_in.0,
        packets_out: figures.packets_out.0,
        bytes_in: figures.bytes_in,
        bytes_out: figures.bytes_out,
    })
}

impl LinkSnapshot {
    fn of(link: &RelayLink) -> Self {
        Self { handle: Arc::clone(&link.handle), round_trip: link.round_trip.get() }
    }
}
