//! One session: what its links and its game connection share.

mod game;

use std::cell::{Cell, RefCell};
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tracing::info;

use super::link::Link;
use super::metrics::{EdgeMetrics, PortMetrics};
use super::settings::{Server, Settings};
use super::task_waker::TaskWaker;
use super::view::{LinkView, SessionView};
use super::{Relay, SessionKey};
use crate::access_log::{Entry, SessionEnd, What};
use crate::admission::{AddressKey, ConnectionGuard, Inbound};
use otproxy_net::Stream;
use otproxy_protocol::core::{Arrival, EndReason, Machine, Refusal, Source, Upstream};
use otproxy_protocol::frame::{PacketId, SessionId};

/// Links that may carry one session. A client has two or three, and for ten seconds at the most
/// those that it lost; each costs a copy of all packets.
pub const MAX_LINKS: usize = 16;

/// A session on the worker that owns its client.
pub struct Session {
    key: SessionKey,
    player: SocketAddr,
    address: AddressKey,
    /// The listener that it was opened through.
    inbound: Rc<Inbound>,
    /// The game server that it leads to.
    server: Arc<Server>,
    port: Rc<PortMetrics>,
    /// When the connect to the game server may begin.
    connect_at: Instant,
    machine: RefCell<Machine>,
    leave_grace: Duration,
    /// Bytes that may wait for the game server.
    pending: usize,
    links: RefCell<Vec<Rc<Link>>>,
    upstream: RefCell<Upstream>,
    game: RefCell<Option<Rc<Stream>>>,
    /// The game connection takes no more: the session's task waits for it.
    game_blocked: Cell<bool>,
    task: TaskWaker,
    started: Instant,
    bytes_in: Cell<u64>,
    bytes_out: Cell<u64>,
    /// Counts the session against the limits while it lives.
    _guard: ConnectionGuard,
}

impl Source for Session {
    fn machine(&self) -> &RefCell<Machine> {
        &self.machine
    }

    fn end_written(&self) {
        self.wake();
    }
}

impl Session {
    pub(super) fn new(
        relay: &Relay,
        link: &Link,
        id: SessionId,
        (settings, server): (&Settings, &Arc<Server>),
        connect_at: Instant,
        guard: ConnectionGuard,
    ) -> Rc<Self> {
        let now = Instant::now();
        Rc::new(Self {
            key: (link.client(), id),
            player: link.player(),
            address: AddressKey::from(link.player().ip()),
            inbound: Rc::clone(&link.inbound),
            server: Arc::clone(server),
            port: relay.port(server.config.port),
            connect_at,
            machine: RefCell::new(Machine::new(id, settings.limits, now)),
            leave_grace: settings.limits.leave_grace,
            pending: settings.pending,
            links: RefCell::default(),
            upstream: RefCell::new(Upstream::new(server.config.max_packets_per_second)),
            game: RefCell::default(),
            game_blocked: Cell::new(false),
            task: TaskWaker::default(),
            started: now,
            bytes_in: Cell::new(0),
            bytes_out: Cell::new(0),
            _guard: guard,
        })
    }

    pub(super) fn key(&self) -> SessionKey {
        self.key
    }

    pub(super) fn address(&self) -> AddressKey {
        self.address
    }

    pub(super) fn player(&self) -> SocketAddr {
        self.player
    }

    /// Whether it has ended: its client is being told, or was.
    pub(super) fn is_ended(&self) -> bool {
        self.machine.borrow().ended().is_some()
    }

    /// As an operator sees it.
    pub(super) fn view(&self) -> SessionView {
        let machine = self.machine.borrow();
        let server = &self.server.config;
        let link =
            |link: &Rc<Link>| LinkView { presence: Arc::clone(&link.presence), round_trip: link.round_trip.get() };
        SessionView {
            client: self.key.0,
            session: self.key.1,
            port: server.port,
            game_server: server.address.to_string(),
            player: self.player,
            phase: machine.phase(),
            connecting: self.game.borrow().is_none(),
            started: self.started,
            links: self.links.borrow().iter().map(link).collect(),
            unacked: machine.outbox().unacked(),
            reorder: machine.reordering(),
            pending: self.upstream.borrow().len(),
            packets_in: machine.received().0,
            packets_out: machine.sent().0,
            bytes_in: self.bytes_in.get(),
            bytes_out: self.bytes_out.get(),
        }
    }

    /// Links that carry it.
    pub(super) fn links(&self) -> usize {
        self.links.borrow().len()
    }

    /// `link` carries the session from now on.
    pub(super) fn join(self: &Rc<Self>, link: &Rc<Link>) {
        link.join(Rc::clone(self));
        self.links.borrow_mut().push(Rc::clone(link));
    }

    /// `link` left the session on purpose.
    pub(super) fn left_by(&self, link: &Rc<Link>) {
        self.machine.borrow_mut().left(Instant::now());
        self.forget(link);
    }

    /// `link` is gone.
    pub(super) fn lost_by(&self, link: &Rc<Link>) {
        if let Ok(mut machine) = self.machine.try_borrow_mut() {
            machine.lost(Instant::now());
        }
        self.forget(link);
    }

    fn forget(&self, link: &Rc<Link>) {
        if let Ok(mut links) = self.links.try_borrow_mut() {
            links.retain(|l| !Rc::ptr_eq(l, link));
        }
        self.wake();
    }

    /// Ends the session: what it has for the client still goes out, and the end after it.
    pub(super) fn end(&self, reason: EndReason) {
        self.machine.borrow_mut().end(reason);
        self.flush_links();
        self.wake();
    }

    /// Takes one packet of the client, which came over `edge`. It is written by the next
    /// [`Session::flush_game`].
    pub(super) fn on_data(&self, relay: &Relay, edge: &EdgeMetrics, packet: PacketId, ack: PacketId, payload: &[u8]) {
        if let Err(refusal) = self.take(relay, edge, packet, ack, payload) {
            relay.warn(self.player, self.key, &refusal);
            return self.end(refusal.reason());
        }
        let pending = self.upstream.borrow().cost();
        if pending > self.pending {
            let what = format_args!("{pending} bytes wait for the game server, more than sessions.pending");
            relay.warn(self.player, self.key, &what);
            self.end(EndReason::Limit);
        }
    }

    fn take(
        &self,
        relay: &Relay,
        edge: &EdgeMetrics,
        packet: PacketId,
        ack: PacketId,
        payload: &[u8],
    ) -> Result<(), Refusal> {
        let mut machine = self.machine.borrow_mut();
        if machine.ended().is_some() {
            return Ok(());
        }
        let paused = !machine.wants_game_data();
        let freed = machine.ack(ack)?;
        if freed > 0 {
            relay.metrics.relay_unacked_bytes.sub(freed as i64);
            if paused && machine.wants_game_data() {
                self.wake();
            }
        }
        let arrival = machine.accept(packet, payload)?;
        if arrival == Arrival::Duplicate {
            edge.in_duplicate.inc();
            return Ok(());
        }
        edge.in_first.inc();
        if arrival == Arrival::InOrder {
            self.deliver(payload);
            while let Some(held) = machine.pop_held() {
                self.deliver(&held);
            }
        }
        Ok(())
    }

    fn deliver(&self, payload: &[u8]) {
        self.upstream.borrow_mut().push(payload);
        self.port.packets_in.inc();
        self.bytes_in.set(self.bytes_in.get() + payload.len() as u64);
    }

    /// Writes at once what waits for the game server, as far as its socket takes it.
    pub(super) fn flush_game(&self) {
        if self.game_blocked.get() {
            return;
        }
        match self.write_game() {
            Ok(false) => {
                if self.upstream.borrow().next_at().is_some() {
                    self.wake();
                }
            }
            // The task waits for the socket; an error shows there again.
            Ok(true) | Err(_) => {
                self.game_blocked.set(true);
                self.wake();
            }
        }
    }

    /// Gives whether the socket takes no more.
    fn write_game(&self) -> io::Result<bool> {
        let game = self.game.borrow();
        let Some(game) = &*game else { return Ok(false) };
        let mut upstream = self.upstream.borrow_mut();
        loop {
            let bytes = upstream.writable(Instant::now);
            if bytes.is_empty() {
                return Ok(false);
            }
            let wanted = bytes.len();
            let taken = match game.try_write(&[io::IoSlice::new(bytes)]) {
                Ok(taken) => taken,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(true),
                Err(e) => return Err(e),
            };
            upstream.wrote(taken);
            if taken < wanted {
                return Ok(true);
            }
        }
    }

    fn flush_links(&self) {
        for link in &*self.links.borrow() {
            link.flush();
        }
    }

    /// Has the session's task look at what changed.
    fn wake(&self) {
        self.task.wake();
    }
}

/// A session's place in the table, where links find it, until this is dropped.
struct Listed<'a> {
    session: &'a Rc<Session>,
    relay: &'a Rc<Relay>,
}

impl Drop for Listed<'_> {
    fn drop(&mut self) {
        if let Ok(mut sessions) = self.relay.sessions.try_borrow_mut()
            && sessions.get(&self.session.key).is_some_and(|s| Rc::ptr_eq(s, self.session))
        {
            sessions.remove(&self.session.key);
        }
    }
}

/// The account of one session: when it is dropped, the end is counted and logged, however it came.
struct Record<'a> {
    session: &'a Rc<Session>,
    relay: &'a Rc<Relay>,
}

impl<'a> Record<'a> {
    fn new(session: &'a Rc<Session>, relay: &'a Rc<Relay>) -> Self {
        session.port.opened.inc();
        session.port.sessions_active.inc();
        Self { session, relay }
    }
}

impl Drop for Record<'_> {
    fn drop(&mut self) {
        let session = self.session;
        let unfinished = if std::thread::panicking() { EndReason::Panic } else { EndReason::Shutdown };
        let (mut reason, mut packets_in, mut packets_out) = (unfinished, PacketId::NONE, PacketId::NONE);
        // Tried, for a second panic while one unwinds would end the process.
        if let Ok(mut machine) = session.machine.try_borrow_mut() {
            machine.end(unfinished);
            reason = machine.ended().unwrap_or(unfinished);
            (packets_in, packets_out) = (machine.received(), machine.sent());
            self.relay.metrics.relay_unacked_bytes.sub(machine.outbox().unacked() as i64);
        }
        if let Ok(links) = session.links.try_borrow_mut().map(|mut links| std::mem::take(&mut *links)) {
            // Where nobody has told the client yet, the links do so in their own tasks: what failed here could
            // fail again in a write.
            links.iter().for_each(|link| link.flush_later());
        }
        session.port.sessions_active.dec();
        session.port.ended(reason);
        let (client, id) = session.key;
        let (inbound, server) = (&session.inbound, &session.server.config);
        inbound.access_log(|| {
            let what = What::Session(SessionEnd {
                client,
                session: id,
                port: server.port,
                target: server.address.to_string(),
                packets_in: packets_in.0,
                packets_out: packets_out.0,
                reason,
            });
            Entry {
                bytes_in: session.bytes_in.get(),
                bytes_out: session.bytes_out.get(),
                open: inbound.open(),
                ..Entry::new(&inbound.config().name, session.player, session.started, what)
            }
        });
        let Some(suppressed) = self.relay.shared.ended_log.allow(Instant::now()) else { return };
        info!(
            port = server.port,
            player = %session.player,
            %client,
            session = %id,
            seconds = session.started.elapsed().as_secs_f64(),
            packets_in = packets_in.0,
            packets_out = packets_out.0,
            bytes_in = session.bytes_in.get(),
            bytes_out = session.bytes_out.get(),
            %reason,
            suppressed = (suppressed > 0).then_some(suppressed),
            "session ended",
        );
    }
}

#[cfg(test)]
mod tests;
