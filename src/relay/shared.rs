//! The part of the relay that all workers share, and the commands by which they work for one another.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use parking_lot::RwLock;
use tokio::sync::mpsc;

use super::Relay;
use super::beat::{WorldBeats, WorldLook};
use super::frozen::{FrozenWorker, Gate, Thaw, ThawedClient};
use super::game_servers::GameServers;
use super::places::{SessionHolder, SessionPlaces};
use super::settings::RelaySettings;
use super::signs::{self, LinkSigns};
use crate::admission::{
    AddressKey, AdmissionGuard, ConnectQueues, ENDED_LINES, InboundShared, PeerInfo, REFUSED_LINES, TunnelOrigin,
};
use crate::events::EventLog;
use crate::metrics::Metrics;
use otproxy_config as config;
use otproxy_net::{DetachedStream, RateLimitedLog, random_key};
use otproxy_protocol::core::EndReason;
use otproxy_protocol::frame::ClientId;
use otproxy_protocol::player_address::PseudoIpv4;
use otproxy_protocol::trunk::CoreWorkers;

/// The part of the relay that all workers share.
#[derive(Debug)]
pub struct RelayShared {
    /// Locked for a look by each link and open, and for a change by a reload.
    settings: RwLock<Arc<RelaySettings>>,
    /// The places of all sessions.
    pub(super) sessions: Arc<SessionPlaces>,
    pub(super) pseudo_ipv4: PseudoIpv4,
    /// The queues of connects to game servers.
    pub(super) connects: Arc<ConnectQueues>,
    /// Those that are up.
    pub(super) game_servers: GameServers,
    /// The key of the hash that assigns clients to workers: random, so that no client can choose.
    owner_key: [u8; 16],
    /// To each worker. Not bounded by themselves: each link on its way is a connection that counts, with a descriptor, and
    /// operators ask one thing after the other.
    pub(super) commands: Vec<mpsc::UnboundedSender<WorkerCommand>>,
    /// The beats of all worlds.
    pub(super) beats: WorldBeats,
    pub(super) log: RateLimitedLog,
    pub(super) ended_log: RateLimitedLog,
    pub(super) joined_log: RateLimitedLog,
}

/// The commands to one worker.
pub type WorkerCommands = mpsc::UnboundedReceiver<WorkerCommand>;

impl RelayShared {
    /// Returns the shared part, as the core's configuration has it, and the commands to each worker. Sessions wait for their
    /// turn in `connects`.
    pub fn new(
        config: &config::CoreConfig,
        pseudo_ipv4: PseudoIpv4,
        connects: Arc<ConnectQueues>,
    ) -> (Arc<Self>, Vec<WorkerCommands>) {
        let sessions = &config.sessions;
        let (commands, receivers) = (0..config.process.workers.get()).map(|_| mpsc::unbounded_channel()).unzip();
        let shared = Self {
            settings: RwLock::new(Arc::new(RelaySettings::new(config, None))),
            sessions: SessionPlaces::new(sessions),
            pseudo_ipv4,
            connects,
            game_servers: GameServers::default(),
            owner_key: random_key(),
            commands,
            beats: WorldBeats::default(),
            log: RateLimitedLog::new(REFUSED_LINES),
            ended_log: RateLimitedLog::new(ENDED_LINES),
            joined_log: RateLimitedLog::new(REFUSED_LINES),
        };
        (Arc::new(shared), receivers)
    }

    /// Takes `config` from now on. Links and sessions that there are stay, and count.
    pub fn reload(&self, config: &config::CoreConfig) {
        self.sessions.set(&config.sessions);
        self.game_servers.set(&config.game_servers);
        let settings = Arc::new(RelaySettings::new(config, Some(&self.settings())));
        *self.settings.write() = settings;
    }

    /// Shows from now on in `metrics`, which are no worker's, the memory of all sessions, and which game servers are up; `events` is
    /// told of those that change.
    pub fn set_gauge(&self, metrics: &Arc<Metrics>, events: &Arc<EventLog>) {
        self.sessions.set_gauges(metrics.relay_memory_bytes.clone(), metrics.relay_memory_limit_bytes.clone());
        self.game_servers.show_in(metrics, events);
    }

    /// Checks the game servers that are to be checked, until dropped. To be run once for all workers.
    pub async fn watch_game_servers(&self) {
        self.game_servers.watch(&self.connects).await;
    }

    /// Asks each worker `question`, and returns the answers in no order. Answers of workers that are gone are missing.
    pub async fn ask<T: Send + 'static>(&self, question: impl Fn(&Relay) -> T + Send + Sync + 'static) -> Vec<T> {
        let question = Arc::new(question);
        let (answered, mut answers) = mpsc::unbounded_channel();
        for worker in &self.commands {
            let (question, answered) = (Arc::clone(&question), answered.clone());
            // It fails only where that worker is gone, in a shutdown; and nobody may wait for the answer any more.
            let _ = worker.send(WorkerCommand::Ask(Box::new(move |relay| drop(answered.send(question(relay))))));
        }
        drop(answered);
        let mut all = Vec::new();
        while let Some(answer) = answers.recv().await {
            all.push(answer);
        }
        all
    }

    /// Ends a round on each worker: returns the signs of each edge since the last one. To be called by one task alone.
    pub async fn end_round(&self) -> HashMap<Arc<str>, LinkSigns> {
        signs::together(self.ask(Relay::end_round).await)
    }

    /// Looks at which sessions had bytes from each world since the last look. To be called by one task alone.
    pub fn look_at_worlds(&self) -> BTreeMap<u16, WorldLook> {
        self.beats.look()
    }

    /// Has each worker forget the counters of an edge that is configured no more.
    pub fn forget_edge(&self, name: &str) {
        for worker in &self.commands {
            let name = name.to_owned();
            // It fails only where that worker is gone, in a shutdown, and its counters with it.
            let _ = worker.send(WorkerCommand::Ask(Box::new(move |relay| relay.forget_edge(&name))));
        }
    }

    /// Returns how many sessions there are now.
    pub fn sessions(&self) -> usize {
        self.sessions.total()
    }

    /// Has the worker of a session end it, for a reason that is not its own.
    pub(super) fn end(&self, holder: SessionHolder, reason: EndReason) {
        if let Some(worker) = self.commands.get(holder.worker) {
            // It fails only where that worker is gone, in a shutdown, and the session with it.
            let _ = worker.send(WorkerCommand::End { holder, reason });
        }
    }

    /// Returns the settings for new links and sessions.
    pub(super) fn settings(&self) -> Arc<RelaySettings> {
        // They are replaced as a whole.
        Arc::clone(&self.settings.read())
    }

    /// Returns the worker that carries all links and sessions of a client. The id alone decides, so that a join from
    /// another player's address meets the session that it asks for, and is refused.
    pub(super) fn owner(&self, client: ClientId) -> usize {
        let workers = u16::try_from(self.commands.len()).unwrap_or(u16::MAX);
        CoreWorkers::owner(self.owner_key, workers, client).into()
    }

    /// Returns the key by which workers own clients: edges choose by it.
    pub fn owner_key(&self) -> [u8; 16] {
        self.owner_key
    }
}

/// A command from another thread to a worker.
pub enum WorkerCommand {
    /// Carry a link that another worker accepted.
    Carry(Box<Handover>),
    /// End a session, if it is still there.
    End {
        /// The session.
        holder: SessionHolder,
        /// The reason of its end.
        reason: EndReason,
    },
    /// Answer a question.
    Ask(Box<dyn FnOnce(&Relay) + Send>),
    /// Freeze all sessions, and stand still until the gate opens.
    Freeze {
        /// Takes the sessions.
        answer: mpsc::UnboundedSender<FrozenWorker>,
        /// Holds the worker up.
        gate: Arc<Gate>,
    },
    /// Go on with the sessions of a client.
    Thaw(Box<(ThawedClient, Arc<Thaw>)>),
}

/// A link on its way to the worker that owns its client.
#[derive(Debug)]
pub struct Handover {
    pub(super) stream: DetachedStream,
    pub(super) new_link: NewLink,
}

/// A link whose first frame is there.
#[derive(Debug)]
pub(super) struct NewLink {
    /// The listener that accepted it.
    pub inbound: Arc<InboundShared>,
    pub client: ClientId,
    /// The key by which what the player does is counted.
    pub key: AddressKey,
    pub early: Vec<u8>,
    pub guard: AdmissionGuard,
    pub origin: Option<TunnelOrigin>,
}

impl NewLink {
    /// Returns its peer for the logs.
    pub fn peer_info(&self) -> PeerInfo<'_> {
        let handle = self.guard.handle();
        let (address, edge) = (handle.player_or_peer(), handle.edge());
        PeerInfo { address, reporter: self.key.reporter, edge, accepted: handle.began() }
    }
}
