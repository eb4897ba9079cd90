//! Sessions on their way to the process that comes after this one.
//!
//! Each worker freezes its sessions between two events, and then [stands still](Standstill): nothing of them changes any
//! more here, and links and game servers find nothing out of the ordinary but silence. The next process [thaws](thaw) them
//! before it accepts the first link. Plain links go on as well; those of the tunnel and under TLS are lost, as more than a
//! socket belongs to them, and clients bring them back.

mod standstill;
#[cfg(test)]
mod tests;
mod thaw;

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

use super::Relay;
use super::client::RelayMachine;
use super::journal::OldRecord;
use super::link::RelayLink;
use super::session::RelaySession;
use super::shared::{RelayShared, WorkerCommand};
use crate::admission::Reporter;
use otproxy_protocol::core::SessionKey;

pub use standstill::{Gate, Standstill};
pub use thaw::{Thaw, ThawedClient, check_frozen};

/// The number of the format of what a core leaves to the next one. Each client has [one more](FrozenClient) in it.
const FORMAT: u16 = 2;

/// A session, as its owner has it.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct FrozenSession {
    /// The port by which clients ask for its game server.
    pub port: u16,
    player: SocketAddr,
    /// Other addresses from which links have joined it.
    elsewhere: Vec<IpAddr>,
    /// The peer that has told the player's address, if one did that without a certificate.
    peer: Option<IpAddr>,
    listener: String,
    /// The player's address, as the game server is told it before all packets. Nothing, before there is a connection.
    pub header: Bytes,
    /// Milliseconds since it was opened.
    pub age: u64,
    /// The place of its connection to the game server among all of them.
    pub game: Option<u32>,
    /// It has none yet, and is to have one.
    pub connecting: bool,
    /// Its record in the journal of a process that was killed.
    #[serde(skip)]
    pub old: Option<OldRecord>,
}

/// A link, as its owner has it.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct FrozenLink {
    listener: String,
    peer: SocketAddr,
    /// The player, if the peer has told it.
    told: Option<SocketAddr>,
    /// The place of its connection among all of them.
    socket: u32,
}

/// A client's sessions and links, each in the order in which the machine names them.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct FrozenRelayClient {
    pub client: u32,
    pub machine: Bytes,
    pub sessions: Vec<FrozenSession>,
    pub links: Vec<FrozenLink>,
}

/// The clients of one worker, which stands still, and their connections.
#[derive(Debug, Default)]
pub struct FrozenWorker {
    clients: Vec<FrozenRelayClient>,
    sockets: Vec<OwnedFd>,
    /// Sessions for whose connection there was no descriptor left.
    without: usize,
}

/// All sessions of a core, as the next one gets them.
#[derive(Debug)]
pub struct FrozenRelay {
    /// The state, as bytes.
    pub state: Vec<u8>,
    /// The connections that belong to it, to game servers and of links.
    pub sockets: Vec<OwnedFd>,
    /// The number of sessions.
    pub sessions: usize,
    /// The sessions among them for whose connection there was no descriptor left. The next process ends them.
    pub without: usize,
    /// Holds the workers up.
    pub standstill: Standstill,
}

/// The state of a core.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct FrozenState {
    /// Milliseconds of the kernel's monotonic clock at the freeze.
    pub at: u64,
    pub clients: Vec<FrozenRelayClient>,
}

/// Returns the milliseconds of the kernel's monotonic clock, which all processes share.
pub(super) fn monotonic() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    u64::try_from(now.tv_sec).unwrap_or_default() * 1000 + u64::try_from(now.tv_nsec).unwrap_or_default() / 1_000_000
}

impl RelayShared {
    /// Freezes all sessions, and has all workers stand still from then on.
    pub async fn freeze(&self) -> FrozenRelay {
        let standstill = Standstill::default();
        let (answer, mut answers) = tokio::sync::mpsc::unbounded_channel();
        for worker in &self.commands {
            let command = WorkerCommand::Freeze { answer: answer.clone(), gate: Arc::clone(&standstill.0) };
            // It fails only where that worker is gone, and its sessions with it.
            let _ = worker.send(command);
        }
        drop(answer);
        let (mut all, mut sockets, mut lost) = (FrozenState { at: monotonic(), clients: Vec::new() }, Vec::new(), 0);
        while let Some(FrozenWorker { clients, sockets: own, without }) = answers.recv().await {
            lost += without;
            let before = u32::try_from(sockets.len()).unwrap_or(u32::MAX);
            let moved = |mut client: FrozenRelayClient| {
                let games = client.sessions.iter_mut().filter_map(|session| session.game.as_mut());
                games.chain(client.links.iter_mut().map(|link| &mut link.socket)).for_each(|place| *place += before);
                client
            };
            all.clients.extend(clients.into_iter().map(moved));
            sockets.extend(own);
        }
        let sessions = all.clients.iter().map(|client| client.sessions.len()).sum();
        // Serializing to a vector fails for nothing that is in it.
        let state = postcard::to_extend(&all, FORMAT.to_le_bytes().to_vec()).unwrap_or_default();
        FrozenRelay { state, sockets, sessions, without: lost, standstill }
    }
}

impl Relay {
    /// Returns all clients of this worker as they are between two events. Nothing of them may go on here afterwards, unless
    /// nobody goes on with what is returned.
    pub(super) fn freeze(&self) -> FrozenWorker {
        let (now, mut worker) = (Instant::now(), FrozenWorker::default());
        for client in self.clients.borrow().values() {
            let machine = client.machine.borrow();
            let mut streams: HashMap<_, _> = HashMap::new();
            for (key, link) in machine.links_by_key() {
                streams.extend(link.freeze().map(|frozen| (key, frozen)));
            }
            let frozen = machine.freeze(now, |link| streams.contains_key(&link));
            let links = frozen.links().filter_map(|key| {
                let (link, socket) = streams.remove(&key)?;
                Some(FrozenLink { socket: worker.take(socket), ..link })
            });
            let links = links.collect::<Vec<_>>();
            let sessions = frozen.sessions().filter_map(|(_, key)| {
                let session = machine.session(key)?;
                let game = session.game.borrow().as_ref().map(|game| match session.take_held() {
                    Some(held) => Ok(held),
                    None => game.duplicate(),
                });
                worker.without += usize::from(matches!(game, Some(Err(_))));
                let game = game.and_then(Result::ok).map(|game| worker.take(game));
                Some(session.freeze(&machine, key, game, now))
            });
            let sessions = sessions.collect::<Vec<_>>();
            if !sessions.is_empty() || !links.is_empty() {
                let machine = frozen.to_bytes().into();
                worker.clients.push(FrozenRelayClient { client: client.id.0, machine, sessions, links });
            }
        }
        worker
    }
}

impl RelaySession {
    /// Returns the session as its owner has it, with the place of its connection to the game server.
    pub(super) fn freeze(
        &self,
        machine: &RelayMachine,
        key: SessionKey,
        game: Option<u32>,
        now: Instant,
    ) -> FrozenSession {
        let elsewhere = machine.players(key).skip(1).map(|player| player.network().addr());
        let figures = machine.figures(key);
        FrozenSession {
            port: self.server.port,
            player: self.player,
            elsewhere: elsewhere.collect(),
            peer: match self.opener().reporter {
                Reporter::Peer(peer) => Some(peer.network().addr()),
                Reporter::Socket | Reporter::Edge(_) => None,
            },
            listener: self.inbound().config().name.clone(),
            age: u64::try_from(now.saturating_duration_since(self.started).as_millis()).unwrap_or(u64::MAX),
            header: self.header.get().cloned().unwrap_or_default(),
            game,
            connecting: figures.is_some_and(|figures| figures.connecting && figures.ended.is_none()),
            old: None,
        }
    }
}

impl RelayLink {
    /// Returns the link and its socket, whose place is not known yet; `None` for one that cannot go on elsewhere.
    fn freeze(&self) -> Option<(FrozenLink, OwnedFd)> {
        if !self.begun.get() || self.closing.get().is_some() || self.handle.closing().is_some() {
            return None;
        }
        let told = match self.key().reporter {
            Reporter::Peer(_) => Some(self.player()),
            Reporter::Socket => None,
            Reporter::Edge(_) => return None,
        };
        let (listener, peer) = (self.inbound.config().name.clone(), self.handle.peer());
        Some((FrozenLink { listener, peer, told, socket: 0 }, self.stream.duplicate().ok()?))
    }
}

impl FrozenWorker {
    /// Takes a connection; returns its place.
    fn take(&mut self, socket: OwnedFd) -> u32 {
        self.sockets.push(socket);
        // There are fewer descriptors than that.
        u32::try_from(self.sockets.len() - 1).unwrap_or(u32::MAX)
    }
}
