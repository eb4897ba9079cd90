//! The control of a service: its changes while it runs.

use std::collections::{HashMap, HashSet};
use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use parking_lot::{Mutex, MutexGuard};
use thiserror::Error;
use tokio::sync::{OwnedMutexGuard, mpsc, watch};
use tokio::task::spawn_blocking;
use tracing::{error, info, warn};

use super::listeners::{ListenerSet, ListenerSnapshot, PreparedListeners};
use super::revoked::{EdgeTrust, RevokedEdges};
use crate::admission::{ConnectQueues, InboundShared, ProcessAdmission};
use crate::certs::CertError;
use crate::certs::operators::RevokedOperators;
use crate::certs::watch::IdentityWatch;
use crate::events::{EventLog, Happening};
use crate::fleet::FleetKeeper;
use crate::forward::Targets;
use crate::metrics::Metrics;
use crate::relay::{EdgeMetrics, OTHER_EDGE, PortMetrics, RelayShared};
use crate::tunnel::TunnelPeers;
use crate::web;
use otproxy_config as config;
use otproxy_config::{Config, ConfigErrors, Destination, ListenerConfig, RestartMode};
use otproxy_net::{BindError, ConnectResult, remedy_as_player, try_as_player};

/// The reason why a reload failed. Nothing has changed then.
#[derive(Debug, Error)]
pub enum ReloadError {
    /// The file is invalid, or cannot be read.
    #[error(transparent)]
    Config(#[from] ConfigErrors),
    /// Its certificates cannot be used.
    #[error(transparent)]
    Certificates(#[from] CertError),
    /// A file of a listener of `kind: web` cannot be used.
    #[error(transparent)]
    Web(#[from] web::WebFileError),
    /// An address cannot be listened on.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// A listener is to use a tunnel that the process was not started with.
    #[error("listener `{0}` leads through the tunnel to the core, and `core` takes a restart to be added")]
    NoTunnel(String),
    /// Nobody would reach servers that were reached until now: connects from players' own addresses fail, as a trial shows.
    #[error(
        "`source: player` would keep players from the servers at {loopback}: a connect from a player's address fails ({result}); {}",
        remedy_as_player(*result)
    )]
    PlayerSource {
        /// The address of the servers.
        loopback: IpAddr,
        /// The error of the trial.
        result: ConnectResult,
    },
    /// There is no such listener.
    #[error("there is no listener `{0}`")]
    NoListener(String),
    /// The process is ending.
    #[error("it is shutting down")]
    Ended,
    /// It was not started from a file.
    #[error("there is no file to read")]
    NoFile,
}

impl ReloadError {
    /// Returns all errors, line by line.
    pub fn lines(&self) -> Vec<String> {
        self.to_string().lines().map(str::to_owned).collect()
    }

    /// Returns whether the error is in the file or in files that it names.
    pub fn is_of_file(&self) -> bool {
        matches!(self, Self::Config(_) | Self::Certificates(_) | Self::NoTunnel(_))
    }
}

/// The result of a reload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReloadResult {
    /// Keys that differ from those of the start, and need a restart.
    pub restart: Vec<String>,
}

/// A handle that changes a service while it runs. Clones change the same one.
#[derive(Clone)]
pub struct Control(Arc<Inner>);

struct Inner {
    /// The lock that admits one change at a time, including the reading of the file.
    turn: Arc<tokio::sync::Mutex<()>>,
    /// `None` once the service ends.
    state: Mutex<Option<ServiceState>>,
    /// The configuration of the start, which lacks later changes.
    started: Config,
    file: OnceLock<Source>,
    last: Mutex<Option<LastReload>>,
    metrics: Arc<Metrics>,
    events: Arc<EventLog>,
}

/// The result of the last reload.
#[derive(Debug, Clone)]
pub(super) struct LastReload {
    pub time: SystemTime,
    /// The errors, line by line; none if it succeeded.
    pub errors: Vec<String>,
}

/// The end of a service.
#[derive(Debug, Default)]
pub(super) struct Ending {
    /// `shutdown_timeout`
    pub within: Duration,
    /// The listening sockets, if a successor may have them.
    pub listeners: Option<Vec<TcpListener>>,
}

/// The source of the configuration.
struct Source {
    file: PathBuf,
    reloaded: Box<dyn Fn(&Config) + Send + Sync>,
}

/// The present state of a service.
pub(super) struct ServiceState {
    /// The configuration of the file, except for keys that need a restart.
    pub config: Config,
    /// Listeners that are closed, whatever the configuration says.
    pub closed: HashSet<String>,
    /// The admission that all listeners share.
    pub gate: Arc<ProcessAdmission>,
    pub listeners: ListenerSet,
    pub relay: Option<Arc<RelayShared>>,
    /// The queues of connects to game servers.
    pub connects: Arc<ConnectQueues>,
    /// Each worker's counters.
    pub metrics: Vec<Arc<Metrics>>,
    /// The edges and relays that the tunnel's server knows.
    pub known: Option<watch::Sender<TunnelPeers>>,
    /// The certificates of the tunnel's identity.
    pub certificates: Option<watch::Sender<IdentityWatch>>,
    /// The operators whose certificates are refused.
    pub revoked: RevokedOperators,
    pub revoked_edges: RevokedEdges,
    /// The keeper of a core's edges.
    pub keeper: Option<Arc<FleetKeeper>>,
    /// The table of a database that is kept in step with them.
    pub table: watch::Sender<Option<config::ProxiesTable>>,
    /// The webhook that owners are told by.
    pub alerts: watch::Sender<Option<config::AlertsConfig>>,
}

impl ServiceState {
    /// Changes the service to `config`, with these listeners closed. Returns a receiver that ends when all workers have
    /// changed.
    ///
    /// # Errors
    /// Fails if an address cannot be bound. Nothing has changed then.
    pub fn change(&mut self, config: Config, closed: HashSet<String>) -> Result<mpsc::Receiver<Infallible>, BindError> {
        let prepared = self.listeners.prepare(&self.revoked_edges.applied(&config), &closed)?;
        Ok(self.adopt(config, closed, prepared))
    }

    /// Refuses an edge, whatever the configuration says, or goes by that again. No file is read, and no descriptor taken: they
    /// may have run out when this is needed most. Returns a receiver that ends when all workers have changed.
    pub fn set_revoked(&mut self, edge: &str, revoked: bool) -> mpsc::Receiver<Infallible> {
        self.revoked_edges.set(edge, revoked);
        let prepared = self.listeners.keep(&self.revoked_edges.applied(&self.config));
        self.adopt(self.config.clone(), self.closed.clone(), prepared)
    }

    /// Goes by `config`, whose listeners are prepared.
    fn adopt(
        &mut self,
        config: Config,
        closed: HashSet<String>,
        prepared: PreparedListeners,
    ) -> mpsc::Receiver<Infallible> {
        let used = self.revoked_edges.applied(&config);
        let process = used.process();
        self.gate.set((&process.limits).into(), Arc::new(process.into()));
        self.gate.bans().set((&process.bans).into());
        self.connects.set(&used);
        self.revoked.set(process.admin.tls.as_ref().map(|tls| tls.revoked.as_slice()).unwrap_or_default());
        self.alerts.send_if_modified(|alerts| {
            let changed = *alerts != process.alerts;
            alerts.clone_from(&process.alerts);
            changed
        });
        if let Config::Core(core) = &*used {
            self.change_core(core);
        }
        drop(used);
        let (done, ended) = mpsc::channel(1);
        self.listeners.change(prepared, &closed, &done);
        (self.config, self.closed) = (config, closed);
        // A listener that was removed is forgotten here too.
        self.closed.retain(|name| self.listeners.has(name));
        ended
    }

    fn change_core(&self, core: &config::CoreConfig) {
        // Workers make these again. A scrape before that must find the zeros as well.
        for metrics in &self.metrics {
            let edges = core.edges.iter().map(|edge| edge.name.as_str());
            edges.chain([OTHER_EDGE]).for_each(|edge| drop(EdgeMetrics::new(metrics, edge)));
            core.game_servers.iter().for_each(|server| drop(PortMetrics::new(metrics, server.port)));
        }
        self.gate.edges().set(&core.edges);
        self.keeper.iter().for_each(|keeper| keeper.set(&core.fleet, &core.edges));
        self.table.send_if_modified(|table| {
            let changed = *table != core.proxies_table;
            table.clone_from(&core.proxies_table);
            changed
        });
        if let Some(relay) = &self.relay {
            relay.reload(core);
            if let Config::Core(before) = &self.config {
                let gone = |edge: &&config::EdgePeer| core.edges.iter().all(|other| other.name != edge.name);
                before.edges.iter().filter(gone).for_each(|edge| relay.forget_edge(&edge.name));
            }
        }
        if let Some(known) = &self.known {
            let relays = core.listeners.iter().filter(|listener| matches!(listener, ListenerConfig::Relay(_)));
            let links = relays.map(|listener| listener.inbound().name.clone()).collect();
            known.send_replace(TunnelPeers { edges: core.edges.clone(), links });
        }
    }
}

/// Shows that the configuration was read just now, or could not be.
fn count_reload(metrics: &Metrics, successful: bool) {
    metrics.config_last_reload_successful.set(successful.into());
    if successful {
        let at = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let seconds = i64::try_from(at.as_secs()).unwrap_or(i64::MAX);
        metrics.config_last_reload_success_timestamp.set(seconds);
    }
}

impl Control {
    pub(super) fn new(state: ServiceState, metrics: Arc<Metrics>, events: Arc<EventLog>) -> Self {
        count_reload(&metrics, true);
        let (started, state) = (state.config.clone(), Mutex::new(Some(state)));
        let (turn, file, last) = (Arc::default(), OnceLock::new(), Mutex::new(None));
        Self(Arc::new(Inner { turn, state, started, file, last, metrics, events }))
    }

    /// Sets the file of the configuration. `reloaded` is called with each configuration that is used from then on.
    pub fn set_file(&self, file: PathBuf, reloaded: impl Fn(&Config) + Send + Sync + 'static) {
        // This is called once.
        let _ = self.0.file.set(Source { file, reloaded: Box::new(reloaded) });
    }

    /// Reads the file again, checks it whole, and changes the service to it. The result is logged and counted.
    ///
    /// # Errors
    /// Returns the reason why nothing has changed.
    pub async fn reload(&self) -> Result<ReloadResult, ReloadError> {
        let _turn = self.0.turn.lock().await;
        let reloaded = match self.read().await {
            Ok((config, certificates)) => self.apply(config, certificates).await,
            Err(error) => Err(error),
        };
        self.tell(&reloaded);
        reloaded
    }

    /// Reloads a configuration that was read already, whose certificates are not read again.
    ///
    /// # Errors
    /// Returns the reason why nothing has changed.
    pub async fn reload_with(&self, config: Config) -> Result<ReloadResult, ReloadError> {
        let _turn = self.0.turn.lock().await;
        let reloaded = self.apply(config, None).await;
        self.tell(&reloaded);
        reloaded
    }

    /// Closes the sockets of a listener on all workers, once they have accepted the connections that wait there. Its
    /// connections go on, and a reload leaves it closed.
    ///
    /// # Errors
    /// Fails if there is no such listener.
    pub async fn close_listener(&self, name: &str) -> Result<(), ReloadError> {
        self.set_closed(name, true).await
    }

    /// Listens again after [`Control::close_listener`].
    ///
    /// # Errors
    /// Fails if there is no such listener, or if one of its addresses cannot be bound.
    pub async fn open_listener(&self, name: &str) -> Result<(), ReloadError> {
        self.set_closed(name, false).await
    }

    /// Refuses an edge, whatever the file says, or goes by that again. A reload keeps it. It does not wait for its turn: a
    /// reload may be reading from a disk that hangs.
    ///
    /// # Errors
    /// Fails if the process is ending.
    pub(super) async fn set_revoked(&self, edge: &str, revoked: bool) -> Result<(), ReloadError> {
        let changed = self.state().as_mut().map(|state| state.set_revoked(edge, revoked)).ok_or(ReloadError::Ended)?;
        settled(changed).await;
        Ok(())
    }

    /// Returns the edges of the core, and who has them refused; `None` for an edge, and once the service ends.
    pub(super) fn edge_trust(&self) -> Option<EdgeTrust> {
        let state = self.state();
        let Config::Core(core) = &state.as_ref()?.config else { return None };
        Some(state.as_ref()?.revoked_edges.trust(&core.edges))
    }

    /// Returns the listeners that believe a PROXY header from an address of this edge.
    pub(super) fn listeners_trusting(&self, edge: &str) -> Vec<String> {
        let state = self.state();
        let Some(state) = state.as_ref() else { return Vec::new() };
        match &*state.revoked_edges.applied(&state.config) {
            Config::Core(core) => core.listeners_trusting(edge).map(str::to_owned).collect(),
            Config::Edge(_) => Vec::new(),
        }
    }

    /// Returns all listeners with the addresses that they listen on now.
    pub fn addresses(&self) -> Vec<(String, Vec<SocketAddr>)> {
        self.state().as_ref().map(|state| state.listeners.addresses()).unwrap_or_default()
    }

    /// Returns the present state of all listeners; none once the service ends.
    pub(super) fn listeners(&self) -> Vec<ListenerSnapshot> {
        self.state().as_ref().map(|state| state.listeners.now()).unwrap_or_default()
    }

    /// Calls `look` with the present configuration, or with that of the start once the service ends.
    pub(super) fn with_config<T>(&self, look: impl FnOnce(&Config) -> T) -> T {
        match &*self.state() {
            Some(state) => look(&state.config),
            None => look(&self.0.started),
        }
    }

    /// Calls `look` with the present configuration and the listeners of links, by name, unless the service ends.
    pub(super) fn with_links(&self, look: impl FnOnce(&Config, HashMap<String, Arc<InboundShared>>)) {
        if let Some(state) = &*self.state() {
            look(&state.config, state.listeners.links());
        }
    }

    /// Waits for its turn, and keeps all changes that have turns away until this is dropped.
    pub(super) async fn hold(&self) -> OwnedMutexGuard<()> {
        Arc::clone(&self.0.turn).lock_owned().await
    }

    /// Returns the sockets of all listeners once more, for a successor.
    ///
    /// # Errors
    /// Fails if no descriptor is left.
    pub(super) fn sockets(&self) -> io::Result<Vec<TcpListener>> {
        self.state().as_ref().map_or_else(|| Ok(Vec::new()), |state| state.listeners.sockets())
    }

    /// Returns the configuration of the start.
    pub(super) fn started(&self) -> &Config {
        &self.0.started
    }

    /// Returns the result of the last reload, if there was one.
    pub(super) fn last_reload(&self) -> Option<LastReload> {
        self.0.last.lock().clone()
    }

    /// Returns the targets of each forward, by the listener's name, in the order of the file.
    pub fn targets(&self) -> Vec<(String, Arc<Targets>)> {
        self.state().as_ref().map(|state| state.listeners.targets()).unwrap_or_default()
    }

    /// Resolves and checks targets, until the end.
    pub(super) fn watch_targets(&self) {
        if let Some(state) = &mut *self.state() {
            state.listeners.watch();
        }
    }

    /// Ends all changes, as the service ends. Listening sockets that no successor is to have are closed as soon as workers
    /// let them go.
    pub(super) fn end(&self) -> Ending {
        let Some(ServiceState { config, listeners, .. }) = self.state().take() else { return Ending::default() };
        let process = config.process();
        let keep = process.restart == RestartMode::Keep;
        Ending { within: process.shutdown_timeout, listeners: keep.then(|| listeners.into_sockets()) }
    }

    fn state(&self) -> MutexGuard<'_, Option<ServiceState>> {
        self.0.state.lock()
    }

    async fn set_closed(&self, name: &str, closed: bool) -> Result<(), ReloadError> {
        let _turn = self.0.turn.lock().await;
        let changed = {
            let mut state = self.state();
            let state = state.as_mut().ok_or(ReloadError::Ended)?;
            if !state.listeners.has(name) {
                return Err(ReloadError::NoListener(name.to_owned()));
            }
            let mut names = state.closed.clone();
            if closed {
                names.insert(name.to_owned())
            } else {
                names.remove(name)
            };
            state.change(state.config.clone(), names)?
        };
        settled(changed).await;
        Ok(())
    }

    /// Reads and checks the file, and the certificates that it names if there is a tunnel.
    async fn read(&self) -> Result<(Config, Option<IdentityWatch>), ReloadError> {
        let file = self.0.file.get().map(|source| source.file.clone()).ok_or(ReloadError::NoFile)?;
        let role = self.0.started.role();
        // Long lists take time, and a file system may hang: nothing else may wait for that.
        let reading = spawn_blocking(move || {
            let config = config::load_for(&file, role)?;
            let certificates = super::certificates(&config)?;
            web::check_files(&config)?;
            Ok((config, certificates))
        });
        reading.await.unwrap_or(Err(ReloadError::Ended))
    }

    async fn apply(&self, config: Config, certificates: Option<IdentityWatch>) -> Result<ReloadResult, ReloadError> {
        let restart = self.0.started.needs_restart_for(&config);
        self.try_new_sources(&config).await?;
        let changed = {
            let mut state = self.state();
            let state = state.as_mut().ok_or(ReloadError::Ended)?;
            if state.certificates.is_none()
                && let Some(name) = through_tunnel(&config)
            {
                return Err(ReloadError::NoTunnel(name.to_owned()));
            }
            let changed = state.change(config.as_far_as(&self.0.started), state.closed.clone())?;
            if let Some(source) = self.0.file.get() {
                (source.reloaded)(&state.config);
            }
            if let (Some(tunnel), Some(certificates)) = (&state.certificates, certificates) {
                tunnel.send_replace(certificates);
            }
            changed
        };
        settled(changed).await;
        Ok(ReloadResult { restart })
    }

    /// Tries connects from players' own addresses, where none are made until now. The privilege for them takes a restart.
    async fn try_new_sources(&self, config: &Config) -> Result<(), ReloadError> {
        let before = self.state().as_ref().map(|state| state.config.loopbacks_of_players()).unwrap_or_default();
        for loopback in config.loopbacks_of_players().difference(&before).copied() {
            try_as_player(loopback).await.map_err(|result| ReloadError::PlayerSource { loopback, result })?;
        }
        Ok(())
    }

    fn tell(&self, reloaded: &Result<ReloadResult, ReloadError>) {
        let errors = reloaded.as_ref().err().map(ReloadError::lines).unwrap_or_default();
        self.0.events.emit(Happening::Reload {
            error: errors.first().cloned(),
            errors: errors.len(),
            restart: reloaded.as_ref().map_or(0, |reloaded| reloaded.restart.len()),
        });
        let last = LastReload { time: SystemTime::now(), errors };
        *self.0.last.lock() = Some(last);
        count_reload(&self.0.metrics, reloaded.is_ok());
        match reloaded {
            Ok(ReloadResult { restart }) if restart.is_empty() => info!("configuration reloaded"),
            Ok(ReloadResult { restart }) => {
                let keys = restart.join(", ");
                warn!(keys, "configuration reloaded, but for keys that need a restart to change");
            }
            Err(errors) => error!(%errors, "configuration not reloaded, it goes on as it was"),
        }
    }
}

/// Waits until all workers have changed, or are gone.
async fn settled(mut changed: mpsc::Receiver<Infallible>) {
    while changed.recv().await.is_some() {}
}

/// Returns a listener of an edge that uses the tunnel.
fn through_tunnel(config: &Config) -> Option<&str> {
    let Config::Edge(edge) = config else { return None };
    let leads = |forward: &&config::ForwardConfig| {
        forward.forward_to.iter().any(|target| matches!(target.destination, Destination::Core(_)))
    };
    edge.listeners.iter().filter_map(ListenerConfig::leading).find(leads).map(|forward| forward.inbound.name.as_str())
}
