//! One session, as the worker that owns its client has it, and its task.

mod game;
mod log;

use std::cell::{Cell, OnceCell, RefCell};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;

use super::Relay;
use super::client::RelayClient;
use super::journal::LiveRecord;
use super::link::RelayLink;
use super::metrics::PortMetrics;
use super::places::SessionPlace;
use crate::admission::{AddressKey, ConnectPlace, Inbound};
use otproxy_config::GameServerConfig;
use otproxy_net::{Stream, TaskWaker};
use otproxy_protocol::core::SessionKey;
use otproxy_protocol::frame::SessionId;

/// A session's connection, and its place within limits. It is there as long as the machine has the session, or its task
/// runs.
///
/// The fields that packets need are first.
#[repr(C)]
pub struct RelaySession {
    pub(super) task: TaskWaker,
    pub(super) game: RefCell<Option<Rc<Stream>>>,
    /// Its record, if it is to outlive this process.
    pub(super) record: RefCell<Option<LiveRecord>>,
    pub(super) port: Rc<PortMetrics>,
    /// Its place among all sessions while it lives.
    pub(super) place: SessionPlace,
    /// The game connection takes no more: the session's task waits for it.
    pub(super) game_blocked: Cell<bool>,
    /// The last look at its world in which it had bytes from there.
    heard_in: Cell<u32>,
    pub(super) id: SessionId,
    pub(super) player: SocketAddr,
    /// The player's address, as the game server is told it before all packets.
    pub(super) header: OnceCell<Bytes>,
    /// The address for which its open counts.
    opener: AddressKey,
    /// The listener that it was opened through.
    inbound: Rc<Inbound>,
    /// The game server that it leads to.
    pub(super) server: Arc<GameServerConfig>,
    /// Its place in the queue of connects to the game server, until its task waits there.
    connect: Cell<Option<ConnectPlace>>,
    pub(super) started: Instant,
}

/// The way by which a session came.
pub(super) struct SessionOrigin {
    /// The player that opened it.
    pub player: SocketAddr,
    /// The address for which its open counts.
    pub opener: AddressKey,
    /// The listener that it was opened through.
    pub inbound: Rc<Inbound>,
    /// The time at which that was.
    pub started: Instant,
}

impl SessionOrigin {
    /// Returns that of a session which a link opens now.
    pub fn of(link: &RelayLink, opener: AddressKey) -> Self {
        Self { player: link.player(), opener, inbound: Rc::clone(&link.inbound), started: Instant::now() }
    }
}

impl RelaySession {
    /// Returns a session to `server`, with its place in the queue of connects if there is one.
    pub(super) fn new(
        origin: SessionOrigin,
        id: SessionId,
        server: &Arc<GameServerConfig>,
        port: Rc<PortMetrics>,
        connect: Option<ConnectPlace>,
        place: SessionPlace,
    ) -> Self {
        let SessionOrigin { player, opener, inbound, started } = origin;
        Self {
            task: TaskWaker::default(),
            game: RefCell::default(),
            record: RefCell::default(),
            port,
            place,
            game_blocked: Cell::new(false),
            heard_in: Cell::new(0),
            id,
            player,
            header: OnceCell::new(),
            opener,
            inbound,
            server: Arc::clone(server),
            connect: Cell::new(connect),
            started,
        }
    }

    /// Returns the address for which its open counts.
    pub(super) fn opener(&self) -> AddressKey {
        self.opener
    }

    /// Takes the descriptor by which its connection is held to outlive this process, if there is one.
    pub(super) fn take_held(&self) -> Option<OwnedFd> {
        self.record.borrow().as_ref()?.held()?.take()
    }

    /// Returns the listener that it was opened through.
    pub(super) fn inbound(&self) -> &Inbound {
        &self.inbound
    }
}

/// The task of a session, from its start until links find it no more.
pub(super) struct SessionTask {
    relay: Rc<Relay>,
    client: Rc<RelayClient>,
    key: SessionKey,
    session: Rc<RelaySession>,
}

impl SessionTask {
    /// Returns the task of a session that the client's machine has let in.
    pub fn new(relay: Rc<Relay>, client: Rc<RelayClient>, key: SessionKey, session: Rc<RelaySession>) -> Self {
        Self { relay, client, key, session }
    }

    fn warn(&self, what: &dyn std::fmt::Display) {
        self.relay.warn(self.session.player, (self.client.id, self.session.id), what);
    }
}

/// A session's place in the table, where links find it, until this is dropped.
struct TableEntry<'a>(&'a SessionTask);

impl Drop for TableEntry<'_> {
    fn drop(&mut self) {
        let SessionTask { relay, client, key, session } = self.0;
        relay.close_record(session);
        // Tried, for a second panic while one unwinds would end the process.
        if let Ok(mut machine) = client.machine.try_borrow_mut() {
            relay.metrics.relay_unacked_bytes.sub(machine.remove(*key) as i64);
            relay.serve_links(&mut machine);
        }
        relay.forget_unused(client);
    }
}

#[cfg(test)]
mod tests;
