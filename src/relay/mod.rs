//! The multi-path relay: links in, game connections out.
//!
//! A link is accepted by any worker, and carried by the one that owns its client. There, links and
//! sessions know each other directly; a packet crosses no thread and takes no lock.
//!
//! Every decision about frames, packets and sessions is that of a client's machine
//! ([`ClientMachine`](otproxy_protocol::core::ClientMachine)). The modules here move the bytes (`link_task`,
//! `session`), carry out the machine's effects (`client`), and apply the limits that all clients share (`admit`).

mod admit;
mod beat;
mod client;
mod frozen;
mod game_servers;
mod idle_watch;
mod journal;
mod link;
mod link_task;
mod listener;
mod metrics;
mod places;
mod sample;
mod session;
mod settings;
mod shared;
mod signs;
mod snapshot;

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::admission::{
    AddressKey, AdmissionGuard, AdmittedConnection, Inbound, InboundShared, ListenerMetrics, PeerInfo, TunnelOrigin,
    TunnelledStream, read_first_ping,
};
use crate::connection::{AdmissionError, Route};
use crate::metrics::{ByReason, Metrics};
use otproxy_net::Stream;
use otproxy_net::worker::{Scratch, Tasks};
use otproxy_protocol::core::OpenError;
use otproxy_protocol::frame::{ClientId, SessionId};
use otproxy_protocol::trunk::ResetReason;

use client::RelayClient;
use idle_watch::IdleWatch;
use link::RelayLink;
use link_task::LinkTask;
use session::RelaySession;
use shared::{Handover, NewLink};
use signs::SignRounds;

pub use beat::{Beat, WorldBeats, WorldLook};
pub use frozen::{FrozenRelay, Standstill, check_frozen};
pub use game_servers::CHECK_WITHIN;
pub use idle_watch::SILENCE;
pub use journal::{RecoveredSessions, RelayJournal};
pub use listener::RelayListener;
pub use metrics::{EdgeMetrics, PortMetrics};
pub use otproxy_protocol::core::{JOIN_INTERVAL, MAX_ADDRESSES, MAX_JOINS, MAX_LINKS};
pub use sample::{EdgeSample, RelaySample, WorldSample};
pub use shared::{RelayShared, WorkerCommand, WorkerCommands};
pub use signs::{KEPT_TRIPS, LinkSigns, MAX_SUSPECTS};
pub use snapshot::{LinkSnapshot, SessionSnapshot};

/// The label of links from peers that are none of the configured edges.
pub const OTHER_EDGE: &str = "other";
/// The time that a session may wait for its turn to connect: clients give up a session that has brought no packet for
/// this long.
pub const CONNECT_WAIT: Duration = Duration::from_secs(30);

/// Frames of one read of a link that are done with before other links have their turn.
pub const FRAMES_PER_TURN: u32 = 64;
/// Requests on one link that may be refused within [`REFUSALS_PERIOD`]. A client that goes on with a session which there
/// is not any more has as many frames on their way, until it hears of the end.
pub const MAX_REFUSALS: u32 = 256;
/// See [`MAX_REFUSALS`].
pub const REFUSALS_PERIOD: Duration = Duration::from_secs(10);
/// Links of one client. A client has one through each edge, and for ten seconds at the most those that it lost.
pub const MAX_CLIENT_LINKS: usize = 128;

/// One worker's part of the relay.
pub struct Relay {
    shared: Arc<RelayShared>,
    index: usize,
    /// Its listeners here, by name.
    inbounds: RefCell<HashMap<String, Weak<Inbound>>>,
    edges: RefCell<HashMap<String, Rc<EdgeMetrics>>>,
    ports: RefCell<HashMap<u16, Rc<PortMetrics>>>,
    metrics: Arc<Metrics>,
    refused: ByReason<OpenError>,
    clients: RefCell<HashMap<ClientId, Rc<RelayClient>>>,
    idle_watch: IdleWatch,
    signs: SignRounds,
    scratch: Rc<Scratch>,
    /// The records of its sessions, if these are to outlive this process.
    journal: Option<RelayJournal>,
    tasks: Tasks,
    /// Cancelled when the process is told to end.
    draining: CancellationToken,
}

impl Relay {
    /// Returns the part of worker `index`, which counts in `metrics`, reads into `scratch`, runs its links and
    /// sessions among `tasks`, and records sessions in `journal`.
    pub fn new(
        shared: Arc<RelayShared>,
        index: usize,
        metrics: Arc<Metrics>,
        scratch: Rc<Scratch>,
        tasks: Tasks,
        journal: Option<RelayJournal>,
    ) -> Rc<Self> {
        Rc::new(Self {
            inbounds: RefCell::default(),
            edges: RefCell::default(),
            ports: RefCell::default(),
            refused: ByReason::new(&metrics.relay_refused, &[]),
            metrics,
            shared,
            index,
            clients: RefCell::default(),
            idle_watch: IdleWatch::default(),
            signs: SignRounds::default(),
            scratch,
            journal,
            tasks,
            draining: CancellationToken::new(),
        })
    }

    /// Returns a listener's part here; of one that this worker does not have with that configuration, a new one.
    pub fn inbound(&self, shared: &Arc<InboundShared>) -> Rc<Inbound> {
        let (name, mut inbounds) = (&shared.config().name, self.inbounds.borrow_mut());
        let known = inbounds.get(name).and_then(Weak::upgrade);
        known.filter(|inbound| Arc::ptr_eq(inbound.shared(), shared)).unwrap_or_else(|| {
            let counters = ListenerMetrics::new(&self.metrics, name);
            let inbound = Rc::new(Inbound::new(Arc::clone(shared), counters, Rc::clone(&self.scratch)));
            inbounds.retain(|_, inbound| inbound.strong_count() > 0);
            inbounds.insert(name.clone(), Rc::downgrade(&inbound));
            inbound
        })
    }

    /// Carries out what other threads want of this worker.
    pub async fn run_commands(self: Rc<Self>, mut commands: WorkerCommands) {
        // At the start they are clients of the process before. All of them come in one turn, ahead of any link: one
        // that found its client not there yet would be told that its session is over.
        while let Ok(command) = commands.try_recv() {
            self.carry_out(command);
        }
        while let Some(command) = commands.recv().await {
            self.carry_out(command);
        }
    }

    fn carry_out(self: &Rc<Self>, command: WorkerCommand) {
        match command {
            WorkerCommand::Carry(handover) => {
                let Handover { stream, new_link } = *handover;
                if let Ok(stream) = stream.attach() {
                    self.carry_link(stream, new_link);
                }
            }
            WorkerCommand::End { holder, reason } => self.end_session(holder, reason),
            WorkerCommand::Ask(answer) => answer(self),
            WorkerCommand::Freeze { answer, gate } => {
                // It fails only where nobody waits for it any more, and then the gate is open.
                let _ = answer.send(self.freeze());
                // The last one tells that all have answered.
                drop(answer);
                gate.wait();
            }
            WorkerCommand::Thaw(order) => {
                let (client, thaw) = *order;
                self.thaw(client, &thaw);
            }
        }
    }

    /// Closes links that say nothing for as long as their listener allows, for ever.
    pub async fn watch_idle(self: Rc<Self>) {
        self.idle_watch.run().await;
    }

    /// Carries one accepted connection: to its end, or to the worker that owns its client.
    pub async fn carry(self: Rc<Self>, inbound: Rc<Inbound>, stream: TcpStream, peer: SocketAddr) {
        if let Some(admitted) = inbound.admit(stream, peer, self.tasks.closes()).await {
            self.carry_admitted(&inbound, admitted).await;
        }
    }

    /// Carries a stream of the tunnel, in the same way.
    pub async fn carry_tunnelled(self: Rc<Self>, inbound: Rc<Inbound>, tunnelled: TunnelledStream) {
        if let Some(admitted) = inbound.admit_tunnelled(tunnelled).await {
            self.carry_admitted(&inbound, admitted).await;
        }
    }

    async fn carry_admitted(self: &Rc<Self>, inbound: &Rc<Inbound>, admitted: AdmittedConnection) {
        let Some((stream, new_link)) = self.first_frame(inbound, admitted).await else { return };
        let owner = self.shared.owner(new_link.client);
        if owner == self.index {
            // A task of its own: what only the start needed takes no memory while the link lives.
            return self.carry_link(stream, new_link);
        }
        if stream.is_of_trunk() {
            inbound.refuse(&stream, AdmissionError::WrongWorker, new_link.peer_info());
            stream.refuse(ResetReason::WrongWorker);
        } else if let (Some(sender), Ok(stream)) = (self.shared.commands.get(owner), stream.detach()) {
            // It fails only when that worker is gone, in a shutdown.
            let _ = sender.send(WorkerCommand::Carry(Box::new(Handover { stream, new_link })));
        }
    }

    async fn first_frame(&self, inbound: &Inbound, admitted: AdmittedConnection) -> Option<(Stream, NewLink)> {
        let AdmittedConnection { stream, player, key, mut early, guard, origin, accepted, .. } = admitted;
        let telling = async { Ok(read_first_ping(&stream, &mut early, &self.scratch).await?) };
        let first = self.draining.run_until_cancelled(timeout(inbound.config().timeouts.idle, telling));
        let first = async { first.await.unwrap_or(Ok(Err(AdmissionError::Drained))) };
        let first = guard.handle().run_until_closed(first).await.unwrap_or_else(|closing| Ok(Err(closing.into())));
        match first.unwrap_or(Err(AdmissionError::NoPing)) {
            Ok(client) => {
                let inbound = Arc::clone(inbound.shared());
                Some((stream, NewLink { inbound, client, key, early, guard, origin }))
            }
            Err(reason) => {
                self.tasks.closes().turn().await;
                let who = PeerInfo { address: player, reporter: key.reporter, edge: guard.handle().edge(), accepted };
                inbound.refuse(&stream, reason, who);
                None
            }
        }
    }

    /// Starts the task that carries a link of one of this worker's clients.
    fn carry_link(self: &Rc<Self>, stream: Stream, new_link: NewLink) {
        // Its first bytes may have come before its trunk was lost. The series of an edge that is gone must not come back.
        if new_link.origin.as_ref().is_some_and(|origin| origin.edge.is_revoked()) {
            return;
        }
        let (inbound, owner) = (self.inbound(&new_link.inbound), self.client(new_link.client));
        if !owner.has_room_for(new_link.guard.handle(), new_link.key) {
            inbound.refuse(&stream, AdmissionError::ClientLinks, new_link.peer_info());
            return;
        }
        let NewLink { inbound: _, client, key, early, guard, origin } = new_link;
        let link = self.new_link(stream, (&guard, key), client, origin, inbound);
        self.tasks.spawn(LinkTask::new(Rc::clone(self), Rc::clone(&owner), link, early, guard));
        // Its worker may have been told to end meanwhile.
        self.let_go(&owner);
    }

    /// Makes a link of an admitted connection.
    fn new_link(
        &self,
        stream: Stream,
        (guard, key): (&AdmissionGuard, AddressKey),
        client: ClientId,
        origin: Option<TunnelOrigin>,
        inbound: Rc<Inbound>,
    ) -> Rc<RelayLink> {
        let handle = Arc::clone(guard.handle());
        let edge = self.edge_named(handle.edge().map_or(OTHER_EDGE, |edge| &**edge));
        handle.set_link();
        handle.set_route(Route::Client(client.0));
        Rc::new(RelayLink::new(stream, (handle, key), client, edge, origin, inbound))
    }

    /// Returns the counters of an edge. Only names that the configuration has had come here.
    fn edge_named(&self, name: &str) -> Rc<EdgeMetrics> {
        let mut edges = self.edges.borrow_mut();
        match edges.get(name) {
            Some(edge) => Rc::clone(edge),
            None => Rc::clone(edges.entry(name.to_owned()).or_insert(Rc::new(EdgeMetrics::new(&self.metrics, name)))),
        }
    }

    /// Forgets the counters of an edge that is configured no more.
    fn forget_edge(&self, name: &str) {
        self.edges.borrow_mut().remove(name);
        EdgeMetrics::forget(&self.metrics, name);
    }

    /// Returns the counters of a port, likewise.
    fn port(&self, port: u16) -> Rc<PortMetrics> {
        let new = || {
            let port_metrics = PortMetrics::new(&self.metrics, port);
            self.shared.beats.add(port, &port_metrics);
            Rc::new(port_metrics)
        };
        Rc::clone(self.ports.borrow_mut().entry(port).or_insert_with(new))
    }

    /// Logs that a session is carried by a link from another address than before, likewise.
    fn log_joined_elsewhere(&self, client: ClientId, link: &RelayLink, session: &RelaySession) {
        if let Some(suppressed) = self.shared.joined_log.allow(Instant::now()) {
            let suppressed = (suppressed > 0).then_some(suppressed);
            let (player, opened_by, session) = (link.player(), session.player, session.id);
            info!(%player, %opened_by, %client, %session, suppressed, "joined from another address");
        }
    }

    /// Logs what a peer can cause, as far as the log's limit goes.
    fn warn(&self, player: SocketAddr, (client, session): (ClientId, SessionId), what: &dyn std::fmt::Display) {
        if let Some(suppressed) = self.shared.log.allow(Instant::now()) {
            warn!(%player, %client, %session, suppressed, "{what}");
        }
    }
}
