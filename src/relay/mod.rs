//! The multi-path relay: links in, game connections out.
//!
//! A link is accepted by any worker, and carried by the one that owns its client. There, links and
//! sessions know each other directly; a packet crosses no thread and takes no lock.

mod idle_watch;
mod link;
mod link_task;
mod listener;
mod metrics;
mod session;
mod settings;
mod task_waker;
mod view;

use std::cell::RefCell;
use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::net::SocketAddr;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::RwLock;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tracing::warn;

use crate::admission::{
    AddressKey, Admission, Admitted, ConnectionLimit, ENDED_LINES, Inbound, InboundShared, ListenerMetrics,
    REFUSED_LINES, Tunnelled, Via, Who,
};
use crate::connection::{Leads, RejectReason};
use crate::metrics::{ByReason, Metrics};
use otproxy_config as config;
use otproxy_config::{BindSessions, Ipv6Players};
use otproxy_net::worker::{Scratch, Tasks};
use otproxy_net::{Detached, RateLimitedLog, Stream};
use otproxy_protocol::core::{EndReason, RefuseReason};
use otproxy_protocol::frame::{self, ClientId, HEADER_LEN, MAX_FIRST_PAYLOAD, SessionId};
use otproxy_protocol::player_address::PseudoIpv4;

use idle_watch::IdleWatch;
use link::Link;
use link_task::LinkTask;
use session::Session;
use settings::Settings;

pub use listener::RelayListener;
pub use metrics::{EdgeMetrics, PortMetrics};
pub use session::MAX_LINKS;
pub use view::{LinkView, SessionView};

/// The label of links from peers that are none of the configured edges.
pub const OTHER_EDGE: &str = "other";
/// Connects to one game server that may begin at once, and the time between further ones, where
/// `connects_per_second` does not say otherwise. When thousands of players come back in one second,
/// more than a listen queue holds (often 128) would be answered with SYN cookies, and connections
/// that find the queue full are then reset.
pub const CONNECT_BURST: u32 = 64;
/// See [`CONNECT_BURST`].
pub const CONNECT_INTERVAL: Duration = Duration::from_micros(500);
/// How long a session may wait for its turn to connect: clients give a session up that has brought
/// no packet for so long.
pub const CONNECT_WAIT: Duration = Duration::from_secs(30);

/// What all workers share of the relay.
#[derive(Debug)]
pub struct RelayShared {
    /// Locked for a look by each link and open, and for a change by a reload.
    settings: RwLock<Arc<Settings>>,
    /// Sessions, in all and by address.
    sessions: Arc<ConnectionLimit>,
    pseudo_ipv4: PseudoIpv4,
    /// Which worker owns a client: keyed at random, so that no client can choose.
    owners: RandomState,
    /// To each worker. Not bounded by themselves: each link on its way is a connection that counts, with a descriptor, and
    /// operators ask one thing after the other.
    errands: Vec<mpsc::UnboundedSender<Errand>>,
    log: RateLimitedLog,
    ended_log: RateLimitedLog,
}

/// What one worker is to do for others.
pub type Errands = mpsc::UnboundedReceiver<Errand>;

impl RelayShared {
    /// From the core's configuration: the shared part, and each worker's errands.
    pub fn new(config: &config::Core, pseudo_ipv4: PseudoIpv4) -> (Arc<Self>, Vec<Errands>) {
        let sessions = &config.sessions;
        let (errands, receivers) = (0..config.process.workers.get()).map(|_| mpsc::unbounded_channel()).unzip();
        let shared = Self {
            settings: RwLock::new(Arc::new(Settings::new(config, None))),
            sessions: ConnectionLimit::new(Some(sessions.max), Some(sessions.max_per_address)),
            pseudo_ipv4,
            owners: RandomState::new(),
            errands,
            log: RateLimitedLog::new(REFUSED_LINES),
            ended_log: RateLimitedLog::new(ENDED_LINES),
        };
        (Arc::new(shared), receivers)
    }

    /// Goes by `config` from now on. Links and sessions that there are stay, and count.
    pub fn reload(&self, config: &config::Core) {
        self.sessions.set(Some(config.sessions.max), Some(config.sessions.max_per_address));
        let settings = Arc::new(Settings::new(config, Some(&self.settings())));
        *self.settings.write() = settings;
    }

    /// Has each worker answer `question`; gives the answers, in no order. Those of workers that are gone are missing.
    pub async fn ask<T: Send + 'static>(&self, question: impl Fn(&Relay) -> T + Send + Sync + 'static) -> Vec<T> {
        let question = Arc::new(question);
        let (answered, mut answers) = mpsc::unbounded_channel();
        for worker in &self.errands {
            let (question, answered) = (Arc::clone(&question), answered.clone());
            // It fails only where that worker is gone, in a shutdown; and nobody may wait for the answer any more.
            let _ = worker.send(Errand::Ask(Box::new(move |relay| drop(answered.send(question(relay))))));
        }
        drop(answered);
        let mut all = Vec::new();
        while let Some(answer) = answers.recv().await {
            all.push(answer);
        }
        all
    }

    /// Sessions now.
    pub fn sessions(&self) -> usize {
        self.sessions.total()
    }

    fn settings(&self) -> Arc<Settings> {
        // They are replaced as a whole.
        Arc::clone(&self.settings.read())
    }

    /// The worker that carries all links and sessions of a client. The id alone decides, so that a
    /// stranger's join meets the session that it asks for, and is refused.
    fn owner(&self, client: ClientId) -> usize {
        self.owners.hash_one(client) as usize % self.errands.len().max(1)
    }
}

/// What a worker is to do for another thread.
pub enum Errand {
    /// Carry a link that another worker accepted.
    Carry(Box<Handover>),
    /// Answer a question.
    Ask(Box<dyn FnOnce(&Relay) + Send>),
}

/// A link on its way to the worker that owns its client.
#[derive(Debug)]
pub struct Handover {
    stream: Detached,
    newcomer: Newcomer,
}

/// What is known of a link once its first frame is there.
#[derive(Debug)]
struct Newcomer {
    /// The listener that accepted it.
    inbound: Arc<InboundShared>,
    client: ClientId,
    peer: SocketAddr,
    early: Vec<u8>,
    guard: Admission,
    via: Option<Via>,
}

/// A session, as the core tells them apart.
type SessionKey = (ClientId, SessionId);

/// One worker's part of the relay.
pub struct Relay {
    shared: Arc<RelayShared>,
    index: usize,
    /// Its listeners here, by name.
    inbounds: RefCell<HashMap<String, Weak<Inbound>>>,
    edges: RefCell<HashMap<String, Rc<EdgeMetrics>>>,
    ports: RefCell<HashMap<u16, Rc<PortMetrics>>>,
    metrics: Arc<Metrics>,
    refused: ByReason<RefuseReason>,
    sessions: RefCell<HashMap<SessionKey, Rc<Session>>>,
    idle_watch: IdleWatch,
    scratch: Rc<Scratch>,
    tasks: Tasks,
}

impl Relay {
    /// The part of worker `index`, which counts in `metrics`, reads into `scratch` and runs its
    /// links and sessions among `tasks`.
    pub fn new(
        shared: Arc<RelayShared>,
        index: usize,
        metrics: Arc<Metrics>,
        scratch: Rc<Scratch>,
        tasks: Tasks,
    ) -> Rc<Self> {
        Rc::new(Self {
            inbounds: RefCell::default(),
            edges: RefCell::default(),
            ports: RefCell::default(),
            refused: ByReason::new(&metrics.relay_refused, &[]),
            metrics,
            shared,
            index,
            sessions: RefCell::default(),
            idle_watch: IdleWatch::default(),
            scratch,
            tasks,
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

    /// Does what other threads ask of this worker.
    pub async fn run_errands(self: Rc<Self>, mut errands: Errands) {
        while let Some(errand) = errands.recv().await {
            match errand {
                Errand::Carry(handover) => {
                    let Handover { stream, newcomer } = *handover;
                    if let Ok(stream) = stream.attach() {
                        self.carry_link(stream, newcomer);
                    }
                }
                Errand::Ask(answer) => answer(&self),
            }
        }
    }

    /// Closes links that say nothing for as long as their listener allows, for ever.
    pub async fn watch_idle(self: Rc<Self>) {
        self.idle_watch.run().await;
    }

    /// Carries one accepted connection: to its end, or to the worker that owns its client.
    pub async fn carry(self: Rc<Self>, inbound: Rc<Inbound>, stream: TcpStream, peer: SocketAddr) {
        if let Some(admitted) = inbound.admit(stream, peer).await {
            self.carry_admitted(&inbound, admitted).await;
        }
    }

    /// Carries a stream of the tunnel, in the same way.
    pub async fn carry_tunnelled(self: Rc<Self>, inbound: Rc<Inbound>, tunnelled: Tunnelled) {
        if let Some(admitted) = inbound.admit_tunnelled(tunnelled).await
            && let Some(edge) = admitted.via.as_ref().map(|via| Arc::clone(&via.edge))
        {
            edge.carry(self.carry_admitted(&inbound, admitted)).await;
        }
    }

    async fn carry_admitted(self: &Rc<Self>, inbound: &Rc<Inbound>, admitted: Admitted) {
        let Some((stream, newcomer)) = self.first_frame(inbound, admitted).await else { return };
        let owner = self.shared.owner(newcomer.client);
        if owner == self.index {
            // A task of its own: what only the start needed takes no memory while the link lives.
            self.carry_link(stream, newcomer);
        } else if let (Some(sender), Ok(stream)) = (self.shared.errands.get(owner), stream.detach()) {
            // It fails only when that worker is gone, in a shutdown.
            let _ = sender.send(Errand::Carry(Box::new(Handover { stream, newcomer })));
        }
    }

    async fn first_frame(&self, inbound: &Inbound, admitted: Admitted) -> Option<(Stream, Newcomer)> {
        let Admitted { stream, peer, player, mut early, guard, via, accepted, .. } = admitted;
        let first = timeout(inbound.config().timeouts.idle, first_ping(&stream, &mut early, &self.scratch));
        let first = guard.presence().attend(first).await.unwrap_or_else(|closing| Ok(Err(closing.into())));
        match first.unwrap_or(Err(RejectReason::NoPing)) {
            Ok(client) => {
                let inbound = Arc::clone(inbound.shared());
                Some((stream, Newcomer { inbound, client, peer, early, guard, via }))
            }
            Err(reason) => {
                let who = Who { address: player, edge: via.as_ref().map(|via| &*via.edge), accepted };
                inbound.refuse(&stream.options(), reason, who, true);
                None
            }
        }
    }

    /// Starts the task that carries a link of one of this worker's clients.
    fn carry_link(self: &Rc<Self>, stream: Stream, newcomer: Newcomer) {
        let Newcomer { inbound, client, peer, early, guard, via } = newcomer;
        let proven = via.as_ref().map(|via| Arc::clone(&via.edge));
        let edge = match &proven {
            Some(edge) => self.edge_named(edge.name()),
            None => self.edge_named(self.shared.settings().edge_at(peer.ip()).unwrap_or(OTHER_EDGE)),
        };
        let presence = Arc::clone(guard.presence());
        presence.set_link();
        presence.set_leads(Leads::Client(client.0));
        if *edge.name != *OTHER_EDGE {
            presence.set_edge(Arc::clone(&edge.name));
        }
        let inbound = self.inbound(&inbound);
        let link = Rc::new(Link::new(stream, presence, client, edge, via, inbound));
        let task = LinkTask::new(Rc::clone(self), link, early, guard);
        match proven {
            Some(edge) => self.tasks.spawn(edge.carry(task)),
            None => self.tasks.spawn(task),
        }
    }

    /// The counters of an edge. Only names that the configuration has had come here.
    fn edge_named(&self, name: &str) -> Rc<EdgeMetrics> {
        let mut edges = self.edges.borrow_mut();
        match edges.get(name) {
            Some(edge) => Rc::clone(edge),
            None => Rc::clone(edges.entry(name.to_owned()).or_insert(Rc::new(EdgeMetrics::new(&self.metrics, name)))),
        }
    }

    /// The counters of a port, likewise.
    fn port(&self, port: u16) -> Rc<PortMetrics> {
        Rc::clone(self.ports.borrow_mut().entry(port).or_insert_with(|| Rc::new(PortMetrics::new(&self.metrics, port))))
    }

    /// Opens a session on `link`, or joins the link to it. Refusals are answered with an end.
    fn open(self: &Rc<Self>, link: &Rc<Link>, id: SessionId, port: u32) {
        if link.carries(id) {
            return;
        }
        if link.sessions() >= self.shared.settings().max_per_link {
            return self.refuse(link, id, RefuseReason::LinkSessions);
        }
        let session = match self.existing(link, id) {
            Ok(Some(session)) if session.links() >= MAX_LINKS => Err(RefuseReason::SessionLinks),
            Ok(Some(session)) => Ok(session),
            Ok(None) => self.create(link, id, port),
            Err(reason) => Err(reason),
        };
        match session {
            Ok(session) => session.join(link),
            Err(reason) => self.refuse(link, id, reason),
        }
    }

    /// The session that `link` names, where there is one and it is this player's.
    fn existing(&self, link: &Link, id: SessionId) -> Result<Option<Rc<Session>>, RefuseReason> {
        let sessions = self.sessions.borrow();
        let Some(session) = sessions.get(&(link.client(), id)) else { return Ok(None) };
        let same = self.shared.settings().bind_sessions == BindSessions::Client
            || session.address() == AddressKey::from(link.player().ip());
        if same { Ok(Some(Rc::clone(session))) } else { Err(RefuseReason::Identity) }
    }

    fn create(self: &Rc<Self>, link: &Link, id: SessionId, port: u32) -> Result<Rc<Session>, RefuseReason> {
        let settings = self.shared.settings();
        let server = settings.server(port).ok_or(RefuseReason::Port)?;
        let player = link.player();
        if player.is_ipv6() && server.config.ipv6_players == Ipv6Players::Refuse {
            return Err(RefuseReason::Ipv6Player);
        }
        let (address, now) = (AddressKey::from(player.ip()), Instant::now());
        let guard = self.shared.sessions.try_acquire(address).map_err(|_| RefuseReason::SessionLimit)?;
        if settings.opens.as_ref().is_some_and(|opens| !opens.try_take(address, now)) {
            return Err(RefuseReason::OpenRate);
        }
        // The place is this session's even if it ends before: then it passes unused. An open costs the
        // others no more than that way, and opens are limited.
        let connect_at = server.connect_place(now).ok_or(RefuseReason::ConnectQueue)?;
        let session = Session::new(self, link, id, (&settings, server), connect_at, guard);
        self.sessions.borrow_mut().insert(session.key(), Rc::clone(&session));
        self.tasks.spawn(Rc::clone(&session).run(Rc::clone(self)));
        Ok(session)
    }

    /// Data for a session that `link` does not carry.
    fn stray_data(&self, link: &Link, id: SessionId) {
        match self.existing(link, id) {
            Ok(Some(_)) => self.count_refused(link, id, RefuseReason::NotJoined),
            Ok(None) => self.refuse(link, id, RefuseReason::UnknownSession),
            Err(reason) => self.refuse(link, id, reason),
        }
    }

    fn refuse(&self, link: &Link, id: SessionId, reason: RefuseReason) {
        link.answer_end(id);
        self.count_refused(link, id, reason);
    }

    fn count_refused(&self, link: &Link, session: SessionId, reason: RefuseReason) {
        self.refused.inc(reason);
        self.warn(link.player(), (link.client(), session), &format_args!("refused: {reason}"));
    }

    /// Logs what a peer can cause, as far as the log's limit goes.
    fn warn(&self, player: SocketAddr, (client, session): SessionKey, what: &dyn std::fmt::Display) {
        if let Some(suppressed) = self.shared.log.allow(Instant::now()) {
            warn!(%player, %client, %session, suppressed, "{what}");
        }
    }

    /// Ends all sessions and tells their clients, as far as their links take it at once.
    pub fn shut_down(&self) {
        let sessions: Vec<Rc<Session>> = self.sessions.borrow().values().cloned().collect();
        for session in sessions {
            session.end(EndReason::Shutdown);
        }
    }
}

/// Reads until the first frame, a ping, is there; it stays in `early`.
async fn first_ping(stream: &Stream, early: &mut Vec<u8>, scratch: &Scratch) -> Result<ClientId, RejectReason> {
    loop {
        // What is still incomplete is short: what claims to be longer than a ping is not read to its end.
        if let Some(client) = frame::first_ping(early).map_err(|_| RejectReason::NoPing)? {
            return Ok(client);
        }
        match stream.read_onto(early, HEADER_LEN + MAX_FIRST_PAYLOAD, scratch).await {
            Ok(0) | Err(_) => return Err(RejectReason::Closed),
            Ok(_) => {}
        }
    }
}
