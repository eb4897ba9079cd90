//! A role that is bound and can run: worker threads, admin, shutdown.

use std::collections::HashSet;
use std::convert::Infallible;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use prometheus::IntCounter;
use thiserror::Error;
use tokio::sync::{mpsc, watch};
use tokio::task::spawn_blocking;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tracing::{error, info, warn};

use super::control::{Control, Ending, ServiceState};
use super::drain::{LAST_SPREAD, SPREAD, close_links};
use super::listeners::ListenerSet;
use super::operator::{self, RoleOperator};
use super::report::{Reports, player_counter};
use super::revoked::RevokedEdges;
use super::running::ListenerParts;
use super::sampler::Sampler;
use super::succession::{self, Legacy, sessions_of};
use super::upgrade::{Estate, UpgradeDesk};
use super::worker::{ListenerPlans, Worker, worker_name};
use crate::access_log::{AccessLog, LogFlushed};
use crate::admin::{self, AdminError, Readiness};
use crate::admission::{AdmissionControl, BanMetrics, Bans, ProcessAdmission, bans};
use crate::alerts::{self, AlertSettings};
use crate::certs::watch::IdentityWatch;
use crate::certs::{CertError, HandshakeResult};
use crate::connection::EdgeRegistry;
use crate::events::EventLog;
use crate::fleet::{EvidenceGatherer, Fleet, FleetKeeper};
use crate::forward::{HeaderFor, TargetWays};
use crate::handover::{DescriptorStore, Lifeline, Predecessor};
use crate::history::History;
use crate::lag::{self, Host};
use crate::metrics::{BuildInfo, ByReason, Metrics};
use crate::proxies_table;
use crate::relay::{RecoveredSessions, RelayShared, Standstill, check_frozen};
use crate::state::StateDir;
use crate::traffic::TrafficMeter;
use crate::tunnel::{self, EdgeErrands, ErrandsTaken, TunnelPeers};
use crate::web;
use otproxy_config as config;
use otproxy_config::{Config, RoleKind};
use otproxy_net::worker::{self, Scratch, StopSignals, Tasks};
use otproxy_net::{BindError, Inherited, bind_beside};
use otproxy_protocol::core::{FrozenError, OpenError};

/// The reason why a role cannot start.
#[derive(Debug, Error)]
pub enum StartError {
    /// It cannot listen on an address.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The certificates for the tunnel cannot be used.
    #[error(transparent)]
    Certificates(#[from] CertError),
    /// A socket of the admin server cannot be bound, or one of its files cannot be used.
    #[error(transparent)]
    Admin(#[from] AdminError),
    /// A file of a listener of `kind: web` cannot be used.
    #[error(transparent)]
    Web(#[from] web::WebFileError),
    /// There is no thread for the access log.
    #[error("cannot start the access log: {0}")]
    AccessLog(io::Error),
    /// The process that runs hands nothing over.
    #[error("the process that runs does not hand over: {0}; its log says more")]
    NotOffered(io::Error),
    /// It hands over what this version cannot go on with.
    #[error("cannot go on with the sessions of the process that runs: {0}")]
    State(FrozenError),
}

/// The time after which a process has lasted: nothing that it took over ends it.
const LASTS: Duration = Duration::from_secs(1);

/// The words about a process that could not be taken over from.
pub const GOES_ON: &str = "this one does not take over, and the process that runs goes on";

type WorkerFuture = Pin<Box<dyn Future<Output = io::Result<()>>>>;
/// The main function of a worker thread.
pub(super) type WorkerMain = Box<dyn FnOnce(StopSignals) -> WorkerFuture + Send>;

/// A role whose sockets are bound. Connections wait in the kernel until [`Service::run`].
pub struct Service {
    role: RoleKind,
    addresses: Vec<(String, Vec<SocketAddr>)>,
    admin: admin::AdminServer,
    /// The admission that all listeners share.
    process: Arc<ProcessAdmission>,
    relay: Option<Arc<RelayShared>>,
    /// The nftables table that bans are written to.
    nftables: Option<config::NftTable>,
    metrics: Vec<Arc<Metrics>>,
    /// Counters of events outside of the workers.
    own_metrics: Arc<Metrics>,
    control: Control,
    workers: Vec<WorkerMain>,
    tunnel: Option<(Arc<Metrics>, WorkerMain)>,
    /// The requests of the core to this edge.
    errands: Option<ErrandsTaken>,
    /// The edges of a core that is asked about them.
    fleet: Option<Fleet>,
    /// The keeper of a core's edges.
    keeper: Option<Arc<FleetKeeper>>,
    /// The settings of the table that is kept in step with them.
    table: proxies_table::TableSettings,
    /// The settings of the webhook that owners are told by.
    alerts: AlertSettings,
    access_log: Option<LogFlushed>,
    /// Sockets of the predecessor that nobody has taken yet.
    inherited: Inherited,
    /// The sockets of the tunnel, held here too, so that they can be left to a successor.
    tunnel_sockets: Vec<TcpListener>,
    /// The place for what is left to a successor.
    store: Option<DescriptorStore>,
    /// The log of events.
    events: Arc<EventLog>,
    /// The delays of its threads.
    host: Arc<Host>,
    /// The sessions that the predecessor has left, and their connections.
    left: Option<RecoveredSessions>,
    /// The things that outlive this process if it is killed.
    lifeline: Option<Arc<Lifeline>>,
    /// The predecessor, if it runs until this one does.
    predecessor: Option<Predecessor>,
}

/// The reason why a role stops to be the one that runs.
enum Leaving {
    /// It was told to end.
    Told,
    /// A worker has ended on its own.
    Broken,
    /// Another process has taken over, at a core with the sessions, which stand still here.
    TakenOver(Option<Standstill>),
}

/// The parts in which roles differ.
pub(super) struct ServiceParts {
    pub header_for: HeaderFor,
    pub ways: TargetWays,
    pub relay: Option<Arc<RelayShared>>,
    /// The edges and relays that the tunnel's server knows.
    pub known: Option<watch::Sender<TunnelPeers>>,
    /// The certificates of the tunnel's identity.
    pub certificates: Option<watch::Sender<IdentityWatch>>,
    /// The listening sockets of the predecessor.
    pub inherited: Vec<TcpListener>,
    /// The unix socket of the admin server of a process that runs.
    pub admin: Option<UnixListener>,
}

impl Service {
    /// Binds all listeners of `config`; also returns the plans that each worker starts with.
    pub(super) fn bind(config: Config, parts: ServiceParts) -> Result<(Self, Vec<ListenerPlans>), StartError> {
        let role = config.role();
        let process = config.process();
        web::check_files(&config)?;
        let ServiceParts { header_for, ways, relay, known, certificates, inherited, admin: unix } = parts;
        let mut inherited = succession::take_over(inherited, &config);
        let ca = config.tunnel_files().map(|files| files.ca.as_path());
        let admin = admin::AdminServer::bind_beside(&process.admin, ca, &mut inherited, unix)?;
        let metrics: Vec<_> = (0..process.workers.get()).map(|_| Arc::new(Metrics::new())).collect();
        let own_metrics = Arc::new(Metrics::new());
        // So that the zeros are there, whether there is a relay or a tunnel or not.
        drop(ByReason::<OpenError>::new(&own_metrics.relay_refused, &[]));
        drop(ByReason::<HandshakeResult>::new(&own_metrics.tunnel_handshakes, &[]));
        let config::AccessLogConfig { format, file } = &process.access_log;
        let start = |file| AccessLog::start(*format, file, &process.name, own_metrics.access_log_dropped.clone());
        let log = file.clone().map(start).transpose().map_err(StartError::AccessLog)?;
        let (access_log, written) = log.unzip();
        let bans = Bans::new((&process.bans).into(), BanMetrics::new(&own_metrics));
        let nftables = process.bans.nftables.clone();
        let gate =
            ProcessAdmission::new(AdmissionControl::new((&process.limits).into(), Arc::new(process.into())), bans);
        gate.set_gauge(own_metrics.pressure_ratio.with_label_values(&[""]));
        let events = Arc::<EventLog>::default();
        relay.iter().for_each(|relay| relay.set_gauge(&own_metrics, &events));
        let making = ListenerParts {
            role,
            players: relay.as_ref().map(player_counter),
            header_for,
            ways: ways.clone(),
            gate: Arc::clone(&gate),
            access_log,
            metrics: metrics.clone(),
            own_metrics: Arc::clone(&own_metrics),
        };
        let (listeners, plans) = ListenerSet::new(making, inherited);
        let (metrics_of_workers, closed) = (metrics.clone(), HashSet::new());
        let new_keeper = || {
            let folder = StateDir::new(process.state_dir.as_deref());
            FleetKeeper::new(Arc::clone(gate.edges()), Arc::clone(&own_metrics), Arc::clone(&events), folder)
        };
        let keeper = (role == RoleKind::Core).then(new_keeper);
        let mut state = ServiceState {
            config: config.clone(),
            closed: HashSet::new(),
            gate: Arc::clone(&gate),
            listeners,
            relay: relay.clone(),
            connects: ways.connects,
            metrics: metrics_of_workers,
            known,
            certificates,
            revoked: admin.revoked(),
            revoked_edges: RevokedEdges::default(),
            keeper: keeper.clone(),
            table: watch::Sender::default(),
            alerts: watch::Sender::default(),
        };
        // The first change of all, which workers find when they start.
        state.change(config, closed)?;
        let (addresses, table) = (state.listeners.addresses(), state.table.subscribe());
        let alerts = state.alerts.subscribe();
        let inherited = state.listeners.not_taken();
        let control = Control::new(state, Arc::clone(&own_metrics), Arc::clone(&events));
        let (workers, tunnel) = (Vec::new(), None);
        let service = Self {
            role,
            addresses,
            admin,
            process: gate,
            relay,
            nftables,
            metrics,
            own_metrics,
            control,
            workers,
            tunnel,
            errands: None,
            fleet: None,
            keeper,
            table,
            alerts,
            access_log: written,
            inherited,
            tunnel_sockets: Vec::new(),
            store: None,
            left: None,
            lifeline: None,
            predecessor: None,
            events,
            host: Arc::default(),
        };
        Ok((service, plans))
    }

    /// Returns each worker's counters.
    pub(super) fn metrics(&self) -> &[Arc<Metrics>] {
        &self.metrics
    }

    /// Returns the delays of its threads.
    pub(super) fn host(&self) -> Arc<Host> {
        Arc::clone(&self.host)
    }

    /// Adds a worker thread.
    pub(super) fn add_worker(&mut self, main: WorkerMain) {
        self.workers.push(main);
    }

    /// Binds the sockets of the tunnel, all of which belong to one thread.
    pub(super) fn listen_tunnel(&mut self, addresses: &[SocketAddr]) -> Result<Vec<TcpListener>, StartError> {
        let mut bound = bind_beside(tunnel::NAME, addresses, 1, &[], &mut self.inherited)?;
        self.addresses.push((tunnel::NAME.to_owned(), bound.addresses));
        let mut sockets = bound.sockets.pop().unwrap_or_default();
        sockets.append(&mut bound.beyond);
        // One that cannot be held is not left to a successor, which binds it anew.
        self.tunnel_sockets.extend(sockets.iter().filter_map(|socket| socket.try_clone().ok()));
        Ok(sockets)
    }

    /// Leaves to a successor, in this store, what it can take over.
    pub fn leave_in(&mut self, store: Option<DescriptorStore>) {
        self.store = store;
    }

    /// Lets the core ask this edge through the tunnel.
    pub(super) fn take_errands(&mut self, errands: ErrandsTaken) {
        self.errands = Some(errands);
    }

    /// Lets the operator of a core ask its edges through the tunnel.
    pub(super) fn ask_edges(&mut self, errands: Arc<EdgeErrands>) {
        self.fleet = Some(Fleet::new(self.edges(), errands));
    }

    /// Returns a handle that changes it while it runs.
    pub fn control(&self) -> Control {
        self.control.clone()
    }

    /// Has it go on with the sessions of the process before, if there were some, once it runs.
    pub(super) fn go_on_with(&mut self, sessions: Option<RecoveredSessions>) {
        self.left = sessions;
    }

    /// Has sessions be held by a lifeline, if there is one.
    pub(super) fn hold(&mut self, lifeline: Option<Arc<Lifeline>>) {
        self.lifeline = lifeline;
    }

    /// Takes what a process leaves that runs until this one does.
    pub(super) fn take_over_from(&mut self, predecessor: Predecessor) -> Result<(), StartError> {
        // All that it needs of its own is bound.
        predecessor.accept().map_err(StartError::NotOffered)?;
        let left = predecessor.offered().map_err(StartError::NotOffered)?;
        if self.relay.is_some() {
            check_frozen(&left.state, left.sockets.len()).map_err(StartError::State)?;
        }
        self.go_on_with(sessions_of(left));
        self.predecessor = Some(predecessor);
        Ok(())
    }

    /// Runs the tunnel on a thread of its own, until the drain.
    pub(super) fn run_tunnel<F>(&mut self, run: impl FnOnce(Arc<Metrics>, Rc<Scratch>, Tasks) -> F + Send + 'static)
    where
        F: Future<Output = ()> + 'static,
    {
        let metrics = Arc::new(Metrics::new());
        let counted = Arc::clone(&metrics);
        let main = move |stop| -> WorkerFuture {
            Box::pin(async move {
                let worker = Worker::new(Arc::clone(&metrics), stop);
                // Trunks that are being made end with it; those that are there belong to workers.
                worker.stop.drain.run_until_cancelled(run(metrics, worker.scratch, worker.tasks)).await;
                Ok(())
            })
        };
        self.tunnel = Some((counted, Box::new(main)));
    }

    /// Returns the counter of log lines that were lost.
    pub fn log_dropped(&self) -> &IntCounter {
        &self.own_metrics.log_dropped
    }

    /// Returns the known edges.
    pub(super) fn edges(&self) -> Arc<EdgeRegistry> {
        Arc::clone(self.process.edges())
    }

    /// Returns the bans.
    pub fn bans(&self) -> &Arc<Bans> {
        self.process.bans()
    }

    /// Returns the addresses of a listener, with the ports that the kernel chose; none if there is no such listener.
    pub fn addresses(&self, listener: &str) -> &[SocketAddr] {
        self.addresses.iter().find(|(name, _)| name == listener).map_or(&[], |(_, addresses)| addresses)
    }

    /// Returns all listeners with their addresses.
    pub fn listeners(&self) -> impl Iterator<Item = (&str, &[SocketAddr])> {
        self.addresses.iter().map(|(name, addresses)| (name.as_str(), addresses.as_slice()))
    }

    /// Returns the address of the admin server.
    pub fn admin_address(&self) -> Option<SocketAddr> {
        self.admin.address()
    }

    /// Returns the unix socket of the admin server.
    pub fn admin_socket(&self) -> Option<&Path> {
        self.admin.socket()
    }

    /// Runs until `shutdown`, then lets connections go on for at most `shutdown_timeout`; or until another process has taken over.
    ///
    /// # Errors
    /// Fails if threads or the admin socket cannot be had, if a worker ended on its own, or if the process that this one is to take over
    /// from goes on.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> io::Result<()> {
        let ready = Arc::new(Readiness::default());
        let (tunnel_metrics, tunnel) = self.tunnel.unzip();
        // Listeners hold the log: it ends when they have ended.
        let written = self.access_log;
        let running = Running(self.control);
        let stop = StopSignals::default();
        let doors = self.admin.sockets();
        // The workers end with this future, even if it is dropped early.
        let _ended = (stop.drain.clone().drop_guard(), stop.kill.clone().drop_guard());
        let mut threads = Vec::new();
        let begin = CancellationToken::new();
        let (coming, mut all_there) = mpsc::channel::<Infallible>(1);
        let workers = self.workers.into_iter().enumerate().map(|(index, main)| (worker_name(index), main));
        for (name, main) in workers.chain(tunnel.map(|main| (tunnel::NAME.to_owned(), main))) {
            let (stop, begin, coming) = (stop.clone(), begin.clone(), coming.clone());
            // A worker that ends on its own, or cannot start, ends the process: otherwise some players would be lost
            // unnoticed.
            let ends_all = stop.drain.clone().drop_guard();
            let main = move || async move {
                let _ends_all = ends_all;
                drop(coming);
                match stop.kill.run_until_cancelled(begin.cancelled()).await {
                    Some(()) => main(stop).await,
                    None => Ok(()),
                }
            };
            threads.push(worker::spawn(name, main)?);
        }
        drop(coming);
        if let Some(predecessor) = self.predecessor {
            // Nothing may be left that could fail.
            let _ = all_there.recv().await;
            if stop.drain.is_cancelled() {
                return Err(io::Error::other(format!("{GOES_ON}: a worker cannot start")));
            }
            let taken = spawn_blocking(move || predecessor.take_over()).await.map_err(io::Error::other)?;
            taken.map_err(|error| io::Error::other(format!("{GOES_ON}: {}", StartError::NotOffered(error))))?;
            doors.ownership.iter().for_each(|socket| socket.set(true));
            if let Some(keeper) = self.keeper.clone() {
                let _ = spawn_blocking(move || keeper.recall_orders()).await;
            }
            info!("took over from the process that ran");
        }
        let lifeline = self.lifeline;
        match self.relay.as_ref().zip(self.left) {
            Some((relay, sessions)) => running.0.with_links(|config, listeners| {
                relay.thaw(sessions, config, listeners, &self.own_metrics, lifeline.clone());
            }),
            None => lifeline.iter().for_each(|lifeline| lifeline.settle()),
        }
        begin.cancel();
        let errors = self.own_metrics.bans_nftables_errors.clone();
        let kernel = self.nftables.map(|table| bans::KernelBans::new(table, errors));
        let (checking, leaving) = (self.relay.clone(), self.relay.clone());
        let state = running.0.with_config(|config| StateDir::new(config.process().state_dir.as_deref()));
        let traffic = (self.role == RoleKind::Edge).then(|| Arc::new(TrafficMeter::new(state)));
        let reports =
            Reports { control: running.0.clone(), process: Arc::clone(&self.process), relay: self.relay.clone() };
        let (desk, mut upgrades) = UpgradeDesk::new(self.role);
        let (history, own_metrics) = (Arc::<History>::default(), Arc::clone(&self.own_metrics));
        let operator = operator::OperatorParts {
            desk,
            role: self.role,
            control: running.0.clone(),
            process: Arc::clone(&self.process),
            relay: self.relay,
            metrics: self.metrics.clone(),
            ready: Arc::clone(&ready),
            fleet: self.fleet.clone(),
            keeper: self.keeper.clone(),
            traffic: traffic.clone(),
            events: Arc::clone(&self.events),
            history: Arc::clone(&history),
        };
        let metering = traffic.clone().map(|meter| AbortOnDropHandle::new(tokio::spawn(meter.run())));
        let judging = self.keeper.zip(checking.clone()).map(|(keeper, relay)| {
            let (edges, metrics) = (Arc::clone(self.process.edges()), Arc::clone(&self.own_metrics));
            tokio::spawn(keeper.run(EvidenceGatherer::new(edges, relay, self.fleet.clone(), metrics)))
        });
        let _judging = judging.map(AbortOnDropHandle::new);
        let (standings, counted) = (self.process.edges().standings(), Arc::clone(&self.own_metrics));
        let _in_step = AbortOnDropHandle::new(tokio::spawn(proxies_table::keep(self.table, standings, counted)));
        let sender = alerts::Sender { name: running.0.started().process().name.clone(), role: self.role };
        let telling = alerts::keep(self.alerts, Arc::clone(&self.events), sender, Arc::clone(&self.own_metrics));
        let telling = AbortOnDropHandle::new(tokio::spawn(telling));
        let keeping = self.fleet.map(|fleet| tokio::spawn(fleet.keep_bans(Arc::clone(self.process.bans()))));
        let _keeping = keeping.map(AbortOnDropHandle::new);
        let state = admin::AdminState {
            metrics: self.metrics.into_iter().chain(tunnel_metrics).chain([Arc::clone(&own_metrics)]).collect(),
            ready: Arc::clone(&ready),
            build: BuildInfo { version: env!("CARGO_PKG_VERSION"), role: self.role.as_str() },
            operator: Arc::new(RoleOperator::new(operator)),
        };
        let sampler = Sampler {
            metrics: state.metrics.clone(),
            process: Arc::clone(&self.process),
            relay: checking.clone(),
            own: Arc::clone(&own_metrics),
            host: Arc::clone(&self.host),
            events: Arc::clone(&self.events),
            history,
        };
        let watching = lag::watch(checking.clone(), self.host, self.events, own_metrics);
        let serving = self.admin.serve(state, self.errands, std::future::pending());
        let admin = AbortOnDropHandle::new(tokio::spawn(async move {
            if let Err(error) = serving.await {
                error!(%error, "the admin server cannot run");
            }
        }));
        running.0.watch_targets();
        let _sampling = AbortOnDropHandle::new(tokio::spawn(sampler.run()));
        let _watching = AbortOnDropHandle::new(tokio::spawn(watching));
        let reporting = AbortOnDropHandle::new(tokio::spawn(reports.keep()));
        let _checking =
            checking.map(|relay| AbortOnDropHandle::new(tokio::spawn(async move { relay.watch_game_servers().await })));
        let banning = AbortOnDropHandle::new(tokio::spawn(bans::keep(Arc::clone(self.process.bans()), kernel)));
        let lasting = lifeline.clone();
        let _lasting = AbortOnDropHandle::new(tokio::spawn(async move {
            sleep(LASTS).await;
            lasting.iter().for_each(|lifeline| lifeline.lasts());
        }));
        let mut ended = spawn_blocking(move || {
            let results: Vec<_> = threads.into_iter().map(|thread| thread.join()).collect();
            results
                .into_iter()
                .try_for_each(|r| r.unwrap_or_else(|_| Err(io::Error::other("a worker thread panicked"))))
        });
        let estate = Estate {
            control: &running.0,
            relay: leaving.as_ref(),
            tunnel: &self.tunnel_sockets,
            doors: &doors,
            traffic: traffic.as_ref(),
        };
        let mut shutdown = pin!(shutdown);
        let leave = loop {
            tokio::select! {
                () = stop.drain.cancelled() => break Leaving::Broken,
                () = &mut shutdown => break Leaving::Told,
                Some(call) = upgrades.recv() => if let Some(standstill) = estate.hand_over(call).await {
                    break Leaving::TakenOver(standstill);
                },
            }
        };
        ready.set_ending();
        if let Leaving::Broken = leave {
            error!("a worker has ended");
        }
        drop(doors);
        let Ending { within, listeners } = running.0.end();
        let taken_over = matches!(leave, Leaving::TakenOver(_));
        let legacy = self.store.filter(|_| !taken_over).zip(listeners).map(|(store, mut listeners)| {
            listeners.extend(self.tunnel_sockets);
            Legacy { store, listeners }
        });
        let traffic = traffic.filter(|_| !taken_over);
        if taken_over {
            // The other process does all this from now on, with the same files and tables.
            drop((metering, reporting, banning, telling));
        }
        // Nothing may move here any more once all stand still: this process ends with its workers as they stand.
        let legacy = match (legacy, leaving, leave) {
            (_, _, Leaving::TakenOver(Some(standstill))) => {
                std::mem::forget(standstill);
                if let Some(written) = &written {
                    written.caught_up().await;
                }
                return Ok(());
            }
            (Some(legacy), Some(relay), Leaving::Told) => match legacy.leave_sessions(&relay).await {
                Ok(standstill) => {
                    std::mem::forget(standstill);
                    if let Some(written) = &written {
                        written.caught_up().await;
                    }
                    end(lifeline).await;
                    return Ok(());
                }
                Err(error) => {
                    warn!(%error, "sessions cannot be left to the next process, and end");
                    None
                }
            },
            // A core whose worker has ended leaves nothing.
            (_, Some(_), _) => None,
            (legacy, None, _) => legacy,
        };
        // No successor is to go on with sessions whose clients are told their end.
        end(lifeline).await;
        // From here on new connections wait in the kernel: for a successor, or until their sockets are closed, which is now.
        stop.drain.cancel();
        info!(timeout_seconds = within.as_secs_f64(), "shutting down");
        // A link may be closed at any time without loss, and its player has other edges to come back to.
        let _closing = (self.role == RoleKind::Edge).then(|| {
            // Nobody has to wait for the one that has taken over.
            let over = if taken_over { SPREAD } else { LAST_SPREAD }.min(within / 2);
            AbortOnDropHandle::new(tokio::spawn(
                async move { close_links(self.process.registry(), over, |_| true).await },
            ))
        });
        // One that ends because it was told to ends at once at the second word.
        let told = async { if taken_over { shutdown.await } else { std::future::pending().await } };
        let waited = tokio::select! {
            result = timeout(within, &mut ended) => result.ok(),
            () = told => None,
        };
        let result = match waited {
            Some(result) => result,
            None => {
                warn!("connections still open after shutdown_timeout; closing them");
                stop.kill.cancel();
                ended.await
            }
        };
        if let Some(meter) = traffic {
            // A failure here has been told.
            let _ = spawn_blocking(move || meter.keep()).await;
        }
        // A slow reader of metrics does not delay the end. Its socket is closed with the server.
        admin.abort();
        drop(admin.await);
        if let Some(written) = written {
            written.wait().await;
        }
        if let Some(legacy) = legacy {
            legacy.leave_listeners().await;
        }
        result.unwrap_or_else(|e| Err(io::Error::other(e)))
    }
}

/// A guard that ends all changes when dropped, with the state that they hold.
struct Running(Control);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.end();
    }
}

/// Ends a lifeline. The service manager may take its time.
async fn end(lifeline: Option<Arc<Lifeline>>) {
    if let Some(lifeline) = lifeline {
        // It fails only if it panics.
        let _ = spawn_blocking(move || lifeline.end()).await;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use otproxy_config as config;
    use otproxy_protocol::player_address::PseudoIpv4;

    #[test]
    fn a_worker_that_ends_on_its_own_ends_all() {
        let text = "role: edge\nworkers: 2\nshutdown_timeout: 60s\nadmin: { listen: off }\n\
                    listeners: [{ name: a, listen: '127.0.0.1:0', forward_to: '127.0.0.1:9' }]\n";
        let config = config::parse("edge.yaml", text).unwrap();
        let ways = TargetWays { pool: None, connects: Arc::default(), pseudo_ipv4: PseudoIpv4::new([1; 16]) };
        let parts = ServiceParts {
            header_for: HeaderFor::Proxy,
            ways,
            relay: None,
            known: None,
            certificates: None,
            inherited: Vec::new(),
            admin: None,
        };
        let (mut service, _plans) = Service::bind(config, parts).unwrap();
        service.add_worker(Box::new(|stop| {
            Box::pin(async move {
                stop.drain.cancelled().await;
                Ok(())
            })
        }));
        service.add_worker(Box::new(|_| Box::pin(async { Err(io::Error::other("no more")) })));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let run = async { timeout(Duration::from_secs(60), service.run(std::future::pending())).await };
        let result = runtime.block_on(run);
        assert_eq!(result.expect("it ends").unwrap_err().to_string(), "no more");
    }
}
