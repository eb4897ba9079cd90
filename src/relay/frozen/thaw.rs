//! The return of sessions that the process before has left.

use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::net::TcpStream;
use tracing::{info, warn};

use super::{FORMAT, FrozenLink, FrozenRelayClient, FrozenSession, FrozenState, monotonic};
use crate::admission::{AddressKey, AdmissionGuard, AdmittedConnection, InboundShared, Reporter};
use crate::handover::Lifeline;
use crate::metrics::Metrics;
use crate::relay::client::{RelayClient, RelayMachine};
use crate::relay::journal::RecoveredSessions;
use crate::relay::link::RelayLink;
use crate::relay::link_task::LinkTask;
use crate::relay::places::SessionHolder;
use crate::relay::session::{RelaySession, SessionOrigin, SessionTask};
use crate::relay::shared::{RelayShared, WorkerCommand};
use crate::relay::{CONNECT_WAIT, Relay};
use otproxy_config::{Config, SessionsConfig};
use otproxy_net::Stream;
use otproxy_protocol::core::{FrozenClient, FrozenError, ThawedSession};
use otproxy_protocol::frame::{ClientId, SessionId};

/// A client on its way to the worker that owns it.
#[derive(Debug)]
pub struct ThawedClient {
    client: ClientId,
    machine: Bytes,
    sessions: Vec<(FrozenSession, Option<OwnedFd>)>,
    links: Vec<(FrozenLink, Option<OwnedFd>)>,
}

/// The return of all sessions that the process before has left. When the last worker is done with its own, limits hold
/// again, and the log says how it went.
pub struct Thaw {
    shared: Arc<RelayShared>,
    limits: SessionsConfig,
    listeners: HashMap<String, Arc<InboundShared>>,
    metrics: Arc<Metrics>,
    lifeline: Option<Arc<Lifeline>>,
    at: u64,
    kept: AtomicUsize,
    lost: AtomicUsize,
}

impl Thaw {
    /// Counts sessions that do not go on.
    fn lose(&self, sessions: usize, reason: &dyn std::fmt::Display) {
        if sessions > 0 {
            self.lost.fetch_add(sessions, Ordering::Relaxed);
            warn!(sessions, "sessions of the process before are over: {reason}");
        }
    }
}

impl Drop for Thaw {
    fn drop(&mut self) {
        self.shared.sessions.set(&self.limits);
        if let Some(lifeline) = &self.lifeline {
            lifeline.settle();
        }
        let (kept, lost) = (self.kept.load(Ordering::Relaxed), self.lost.load(Ordering::Relaxed));
        let passed = Duration::from_millis(monotonic().saturating_sub(self.at));
        self.metrics.restart_sessions.with_label_values(&["kept"]).inc_by(kept as u64);
        self.metrics.restart_sessions.with_label_values(&["ended"]).inc_by(lost as u64);
        self.metrics.restart_seconds.set(passed.as_secs_f64());
        info!(kept, ended = lost, seconds = passed.as_secs_f64(), "goes on with the sessions of the process before");
    }
}

impl RecoveredSessions {
    /// Returns the sessions that [`RelayShared::freeze`] has written down, and their connections.
    ///
    /// # Errors
    /// Returns why the state cannot be read.
    pub fn read(state: &[u8], sockets: Vec<OwnedFd>) -> Result<Self, FrozenError> {
        Ok(Self { state: read(state)?, sockets, lost: 0 })
    }
}

impl RelayShared {
    /// Has the workers go on with the sessions of the process before, before they accept links. To be called before they
    /// start; `listeners` are those of links. When all are back, `lifeline` holds those alone.
    pub fn thaw(
        self: &Arc<Self>,
        sessions: RecoveredSessions,
        config: &Config,
        listeners: HashMap<String, Arc<InboundShared>>,
        metrics: &Arc<Metrics>,
        lifeline: Option<Arc<Lifeline>>,
    ) {
        let Config::Core(core) = config else { return };
        let RecoveredSessions { state, sockets, lost } = sessions;
        self.sessions.lift();
        let thaw = Arc::new(Thaw {
            shared: Arc::clone(self),
            limits: core.sessions.clone(),
            listeners,
            metrics: Arc::clone(metrics),
            lifeline,
            at: state.at,
            kept: AtomicUsize::new(0),
            lost: AtomicUsize::new(lost),
        });
        let mut sockets: Vec<_> = sockets.into_iter().map(Some).collect();
        let mut socket = |place: Option<u32>| sockets.get_mut(place? as usize)?.take();
        for FrozenRelayClient { client, machine, sessions, links } in state.clients {
            let sessions = sessions.into_iter().map(|session| {
                let game = socket(session.game);
                (session, game)
            });
            let sessions = sessions.collect();
            let links = links.into_iter().map(|link| {
                let stream = socket(Some(link.socket));
                (link, stream)
            });
            let client = ThawedClient { client: ClientId(client), machine, sessions, links: links.collect() };
            if let Some(worker) = self.commands.get(self.owner(client.client)) {
                // The worker is not there yet.
                let _ = worker.send(WorkerCommand::Thaw(Box::new((client, Arc::clone(&thaw)))));
            }
        }
    }
}

/// Checks that this version can go on with what [`RelayShared::freeze`] has made, to which so many connections belong. Nothing of
/// it is used.
///
/// # Errors
/// Says that it is damaged, or of a format that this version does not know.
pub fn check_frozen(state: &[u8], sockets: usize) -> Result<(), FrozenError> {
    let is_there = |place: u32| usize::try_from(place).is_ok_and(|place| place < sockets);
    for FrozenRelayClient { machine, sessions, links, .. } in read(state)?.clients {
        read_machine(&machine, sessions.len(), links.len())?;
        let places = sessions.iter().filter_map(|session| session.game);
        if !places.chain(links.iter().map(|link| link.socket)).all(is_there) {
            return Err(FrozenError::Damaged);
        }
    }
    Ok(())
}

/// Reads the machine of a client with so many sessions and links.
fn read_machine(machine: &[u8], sessions: usize, links: usize) -> Result<FrozenClient, FrozenError> {
    let machine = FrozenClient::from_bytes(machine)?;
    let whole = (machine.sessions().count(), machine.links().count()) == (sessions, links);
    if whole { Ok(machine) } else { Err(FrozenError::Damaged) }
}

fn read(state: &[u8]) -> Result<FrozenState, FrozenError> {
    let (format, rest) = state.split_first_chunk::<2>().ok_or(FrozenError::Damaged)?;
    match u16::from_le_bytes(*format) {
        FORMAT => postcard::from_bytes(rest).map_err(|_| FrozenError::Damaged),
        format => Err(FrozenError::Format(format)),
    }
}

impl Relay {
    /// Goes on with a client.
    pub(in crate::relay) fn thaw(self: &Rc<Self>, frozen: ThawedClient, thaw: &Thaw) {
        let ThawedClient { client: id, machine, sessions, links } = frozen;
        let machine = match read_machine(&machine, sessions.len(), links.len()) {
            Ok(machine) => machine,
            Err(error) => return thaw.lose(sessions.len(), &error),
        };
        let (now, settings) = (Instant::now(), self.shared.settings());
        let (mut games, mut records, mut old) = (HashMap::new(), HashMap::new(), Vec::new());
        for ((session, key), (mut record, game)) in machine.sessions().zip(sessions) {
            old.extend(record.old.take());
            games.extend(game.and_then(|game| Some((key, Rc::new(Stream::new(attach(game).ok()?).ok()?)))));
            records.insert(key, (session, record));
        }
        let mut streams: HashMap<_, _> = machine.links().zip(links).collect();
        let mut carried = Vec::new();
        let link = |key| {
            let (record, socket) = streams.remove(&key)?;
            let (link, guard) = self.thaw_link(id, &record, socket?, thaw)?;
            carried.push((key, Rc::clone(&link), guard));
            Some(link)
        };
        let session = |key| {
            let (session, record) = records.get(&key)?;
            let (owned, max_packets_per_second) = self.thaw_session(id, *session, record, thaw, now)?;
            Some(ThawedSession {
                session: owned,
                player: record.player.ip().into(),
                elsewhere: record.elsewhere.iter().map(|address| (*address).into()).collect(),
                limits: settings.limits,
                max_packets_per_second,
            })
        };
        let (machine, over) = RelayMachine::thaw(machine, now, link, session);
        thaw.lose(over.len(), &"the port is in game_servers no more, or what was left is damaged");
        let client = Rc::new(RelayClient::thawed(id, machine));
        self.clients.borrow_mut().insert(id, Rc::clone(&client));
        let sessions: Vec<_> = client.machine.borrow().sessions().map(|(_, key)| key).collect();
        for key in sessions {
            let mut machine = client.machine.borrow_mut();
            let Some(owned) = machine.session(key).map(Rc::clone) else { continue };
            thaw.kept.fetch_add(usize::from(machine.ended(key).is_none()), Ordering::Relaxed);
            let game = games.remove(&key);
            // The bytes that a process read before it was killed may be whole packets.
            machine.game_bytes(key, &[]);
            if let Some(game) = &game {
                self.begin_record(id, &machine, key, game);
            }
            self.metrics.relay_unacked_bytes.add(machine.figures(key).map_or(0, |figures| figures.unacked as i64));
            self.count_memory(&machine, key);
            drop(machine);
            // Links may bring packets for it, and the next restart may come, before its task has its first turn.
            owned.game.replace(game.clone());
            let task = SessionTask::new(Rc::clone(self), Rc::clone(&client), key, owned);
            self.tasks.spawn(task.go_on(game));
        }
        for record in old {
            record.forget();
        }
        for (key, link, guard) in carried {
            link.begun.set(true);
            // Of what it has read, whole frames may be left for another turn, and there may be something to write.
            link.block();
            let task = LinkTask::of(Rc::clone(self), Rc::clone(&client), (key, link), Vec::new(), guard);
            self.tasks.spawn(task);
        }
        self.serve_links(&mut client.machine.borrow_mut());
        self.forget_unused(&client);
    }

    fn thaw_link(
        &self,
        client: ClientId,
        record: &FrozenLink,
        socket: OwnedFd,
        thaw: &Thaw,
    ) -> Option<(Rc<RelayLink>, AdmissionGuard)> {
        let inbound = self.inbound(thaw.listeners.get(&record.listener)?);
        let admitted = inbound.admit_again(attach(socket).ok()?, record.peer, record.told)?;
        let AdmittedConnection { stream, key, guard, .. } = admitted;
        Some((self.new_link(stream, (&guard, key), client, None, inbound), guard))
    }

    fn thaw_session(
        &self,
        client: ClientId,
        id: SessionId,
        record: &FrozenSession,
        thaw: &Thaw,
        now: Instant,
    ) -> Option<(Rc<RelaySession>, Option<u32>)> {
        let settings = self.shared.settings();
        let server = settings.server(record.port.into())?;
        let inbound = thaw.listeners.get(&record.listener).or_else(|| thaw.listeners.values().next())?;
        let reporter = record.peer.map_or(Reporter::Socket, |peer| Reporter::Peer(peer.into()));
        let opener = AddressKey::reported(reporter, record.player.ip());
        let holder = |place| SessionHolder { worker: self.index, client, session: id, place };
        // No limit holds until all are back.
        let (place, _) = self.shared.sessions.enter(opener, holder).ok()?;
        // A place that nobody waits at would hold up all behind it.
        let queue = self.shared.connects.of(&server.address).filter(|_| record.connecting);
        let connect = queue.and_then(|queue| queue.join(opener, now, now + CONNECT_WAIT).ok());
        let origin = SessionOrigin {
            player: record.player,
            opener,
            inbound: self.inbound(inbound),
            started: now.checked_sub(Duration::from_millis(record.age)).unwrap_or(now),
        };
        let session = RelaySession::new(origin, id, server, self.port(server.port), connect, place);
        if !record.connecting {
            let _ = session.header.set(record.header.clone());
        }
        Some((Rc::new(session), server.max_packets_per_second))
    }
}

/// Puts a connection on the runtime that this runs on.
fn attach(socket: OwnedFd) -> io::Result<TcpStream> {
    let socket = std::net::TcpStream::from(socket);
    socket.set_nonblocking(true)?;
    TcpStream::from_std(socket)
}
