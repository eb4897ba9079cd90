//! Sessions on their way to the process that comes after this one.
//!
//! Each worker [freezes](Relay::freeze) its sessions between two events, and then stands still: nothing of them changes any
//! more here, and links and game servers find nothing out of the ordinary but silence. The next process [thaws](Thaw) them
//! before it accepts the first link. Plain links go on as well; those of the tunnel and under TLS are lost, as more than a
//! socket belongs to them, and clients bring them back.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::{Condvar, Mutex};
use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};
use tokio::net::TcpStream;
use tracing::{info, warn};

use super::Relay;
use super::client::{RelayClient, RelayMachine};
use super::link::RelayLink;
use super::link_task::LinkTask;
use super::places::SessionHolder;
use super::session::{RelaySession, SessionOrigin, SessionTask};
use super::shared::{RelayShared, WorkerCommand};
use crate::admission::{AddressKey, AdmissionGuard, AdmittedConnection, InboundShared, Reporter};
use crate::metrics::Metrics;
use otproxy_config::{Config, SessionsConfig};
use otproxy_net::Stream;
use otproxy_protocol::core::{FrozenClient, FrozenError, ThawedSession};
use otproxy_protocol::frame::{ClientId, SessionId};

/// The number of the format of what a core leaves to the next one. Each client has [one more](FrozenClient) in it.
const FORMAT: u16 = 1;

/// A session, as its owner has it.
#[derive(Debug, Serialize, Deserialize)]
struct FrozenSession {
    /// The port by which clients ask for its game server.
    port: u16,
    player: SocketAddr,
    /// Other addresses from which links have joined it.
    elsewhere: Vec<IpAddr>,
    /// The peer that has told the player's address, if one did that without a certificate.
    peer: Option<IpAddr>,
    listener: String,
    /// Milliseconds since it was opened.
    age: u64,
    /// The place of its connection to the game server among all of them.
    game: Option<u32>,
    /// It has none yet, and is to have one.
    connecting: bool,
}

/// A link, as its owner has it.
#[derive(Debug, Serialize, Deserialize)]
struct FrozenLink {
    listener: String,
    peer: SocketAddr,
    /// The player, if the peer has told it.
    told: Option<SocketAddr>,
    /// The place of its connection among all of them.
    socket: u32,
}

/// A client's sessions and links, each in the order in which the machine names them.
#[derive(Debug, Serialize, Deserialize)]
struct FrozenRelayClient {
    client: u32,
    machine: Bytes,
    sessions: Vec<FrozenSession>,
    links: Vec<FrozenLink>,
}

/// The clients of one worker, which stands still, and their connections.
#[derive(Debug, Default)]
pub struct FrozenWorker {
    clients: Vec<FrozenRelayClient>,
    sockets: Vec<OwnedFd>,
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
    /// Holds the workers up.
    pub standstill: Standstill,
}

/// The state of a core.
#[derive(Debug, Default, Serialize, Deserialize)]
struct FrozenState {
    /// Milliseconds of the kernel's monotonic clock at the freeze.
    at: u64,
    clients: Vec<FrozenRelayClient>,
}

/// Returns the milliseconds of the kernel's monotonic clock, which all processes share.
fn monotonic() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    u64::try_from(now.tv_sec).unwrap_or_default() * 1000 + u64::try_from(now.tv_nsec).unwrap_or_default() / 1_000_000
}

/// The standstill of workers whose sessions are frozen: they go on when this is dropped, if the process still runs then.
#[derive(Debug, Default)]
pub struct Standstill(Arc<Gate>);

#[derive(Debug, Default)]
pub struct Gate {
    open: Mutex<bool>,
    changed: Condvar,
}

impl Gate {
    /// Blocks the thread until the standstill is over.
    pub fn wait(&self) {
        let mut open = self.open.lock();
        while !*open {
            self.changed.wait(&mut open);
        }
    }
}

impl Drop for Standstill {
    fn drop(&mut self) {
        *self.0.open.lock() = true;
        self.0.changed.notify_all();
    }
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
        let (mut all, mut sockets) = (FrozenState { at: monotonic(), clients: Vec::new() }, Vec::new());
        while let Some(FrozenWorker { clients, sockets: own }) = answers.recv().await {
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
        FrozenRelay { state, sockets, sessions, standstill }
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
                let game = session.game.borrow().as_ref().and_then(|game| game.duplicate().ok());
                let elsewhere = machine.players(key).skip(1).map(|player| player.network().addr());
                let figures = machine.figures(key)?;
                let connecting = figures.connecting && figures.ended.is_none();
                let game = game.map(|game| worker.take(game));
                Some(FrozenSession { elsewhere: elsewhere.collect(), game, connecting, ..session.freeze(now) })
            });
            let sessions = sessions.collect::<Vec<_>>();
            if !sessions.is_empty() || !links.is_empty() {
                let machine = frozen.to_bytes().into();
                worker.clients.push(FrozenRelayClient { client: client.id.0, machine, sessions, links });
            }
        }
        worker
    }

    /// Goes on with a client.
    pub(super) fn thaw(self: &Rc<Self>, frozen: ThawedClient, thaw: &Thaw) {
        let ThawedClient { client: id, machine, sessions, links } = frozen;
        let machine = FrozenClient::from_bytes(&machine).and_then(|machine| {
            let whole = (machine.sessions().count(), machine.links().count()) == (sessions.len(), links.len());
            if whole { Ok(machine) } else { Err(FrozenError::Damaged) }
        });
        let machine = match machine {
            Ok(machine) => machine,
            Err(error) => return thaw.lose(sessions.len(), &error),
        };
        let (now, settings) = (Instant::now(), self.shared.settings());
        let (mut games, mut records) = (HashMap::new(), HashMap::new());
        for ((session, key), (record, game)) in machine.sessions().zip(sessions) {
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
        thaw.kept.fetch_add(sessions.len(), Ordering::Relaxed);
        for key in sessions {
            let machine = client.machine.borrow();
            let Some(owned) = machine.session(key).map(Rc::clone) else { continue };
            self.metrics.relay_unacked_bytes.add(machine.figures(key).map_or(0, |figures| figures.unacked as i64));
            self.count_memory(&machine, key);
            drop(machine);
            let task = SessionTask::new(Rc::clone(self), Rc::clone(&client), key, owned);
            self.tasks.spawn(task.go_on(games.remove(&key)));
        }
        for (key, link, guard) in carried {
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
        let connect = queue.and_then(|queue| queue.join(opener, now, now + super::CONNECT_WAIT).ok());
        let origin = SessionOrigin {
            player: record.player,
            opener,
            inbound: self.inbound(inbound),
            started: now.checked_sub(Duration::from_millis(record.age)).unwrap_or(now),
        };
        let session = RelaySession::new(origin, id, server, self.port(server.port), connect, place);
        Some((Rc::new(session), server.max_packets_per_second))
    }
}

impl RelaySession {
    /// Returns what it knows by itself.
    fn freeze(&self, now: Instant) -> FrozenSession {
        FrozenSession {
            port: self.server.port,
            player: self.player,
            elsewhere: Vec::new(),
            peer: match self.opener().reporter {
                Reporter::Peer(peer) => Some(peer.network().addr()),
                Reporter::Socket | Reporter::Edge(_) => None,
            },
            listener: self.inbound().config().name.clone(),
            age: u64::try_from(now.saturating_duration_since(self.started).as_millis()).unwrap_or(u64::MAX),
            game: None,
            connecting: false,
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

/// Puts a connection on the runtime that this runs on.
fn attach(socket: OwnedFd) -> io::Result<TcpStream> {
    let socket = std::net::TcpStream::from(socket);
    socket.set_nonblocking(true)?;
    TcpStream::from_std(socket)
}

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
        let (kept, lost) = (self.kept.load(Ordering::Relaxed), self.lost.load(Ordering::Relaxed));
        let passed = Duration::from_millis(monotonic().saturating_sub(self.at));
        self.metrics.restart_sessions.with_label_values(&["kept"]).inc_by(kept as u64);
        self.metrics.restart_sessions.with_label_values(&["ended"]).inc_by(lost as u64);
        self.metrics.restart_seconds.set(passed.as_secs_f64());
        info!(kept, ended = lost, seconds = passed.as_secs_f64(), "goes on with the sessions of the process before");
    }
}

impl RelayShared {
    /// Has the workers go on with what [`RelayShared::freeze`] has made, before they accept links. To be called before they
    /// start; `listeners` are those of links. A state that cannot be read is logged, and its connections are closed.
    pub fn thaw(
        self: &Arc<Self>,
        state: &[u8],
        sockets: Vec<OwnedFd>,
        config: &Config,
        listeners: HashMap<String, Arc<InboundShared>>,
        metrics: &Arc<Metrics>,
    ) {
        let Config::Core(core) = config else { return };
        let state = match read(state) {
            Ok(state) => state,
            Err(error) => {
                warn!(connections = sockets.len(), "cannot go on with the sessions of the process before: {error}");
                return;
            }
        };
        self.sessions.lift();
        let thaw = Arc::new(Thaw {
            shared: Arc::clone(self),
            limits: core.sessions.clone(),
            listeners,
            metrics: Arc::clone(metrics),
            at: state.at,
            kept: AtomicUsize::new(0),
            lost: AtomicUsize::new(0),
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

fn read(state: &[u8]) -> Result<FrozenState, FrozenError> {
    let (format, rest) = state.split_first_chunk::<2>().ok_or(FrozenError::Damaged)?;
    match u16::from_le_bytes(*format) {
        FORMAT => postcard::from_bytes(rest).map_err(|_| FrozenError::Damaged),
        format => Err(FrozenError::Format(format)),
    }
}
