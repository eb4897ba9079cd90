//! What changes a service while it runs.

use std::collections::HashSet;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use parking_lot::{Mutex, MutexGuard};
use thiserror::Error;
use tokio::sync::{mpsc, watch};
use tokio::task::spawn_blocking;
use tracing::{error, info, warn};

use super::listeners::{ListenerNow, Listeners};
use crate::certs::CertError;
use crate::certs::watch::Watch;
use crate::config::{self, Config, Destination, Errors};
use crate::forward::Targets;
use crate::limits::ProcessGate;
use crate::metrics::Metrics;
use crate::net::BindError;
use crate::relay::{OTHER_EDGE, RelayShared};
use crate::tunnel::Known;

/// A reload that came to nothing: all is as it was before.
#[derive(Debug, Error)]
pub enum ReloadError {
    /// The file is wrong, or cannot be read.
    #[error(transparent)]
    Config(#[from] Errors),
    /// Its certificates cannot be used.
    #[error(transparent)]
    Certificates(#[from] CertError),
    /// An address cannot be listened on.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// A listener leads through a tunnel that the process was not started with.
    #[error("listener `{0}` leads through the tunnel to the core, and `core` takes a restart to be added")]
    NoTunnel(String),
    /// There is no such listener.
    #[error("there is no listener `{0}`")]
    NoListener(String),
    /// The process ends.
    #[error("it is shutting down")]
    Ended,
    /// It was not started from a file.
    #[error("there is no file to read")]
    NoFile,
}

impl ReloadError {
    /// All that is wrong, line by line.
    pub fn lines(&self) -> Vec<String> {
        self.to_string().lines().map(str::to_owned).collect()
    }

    /// Whether it is what the file says that is wrong, or what it names.
    pub fn is_of_file(&self) -> bool {
        matches!(self, Self::Config(_) | Self::Certificates(_) | Self::NoTunnel(_))
    }
}

/// What a reload has done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reloaded {
    /// Keys that are not as the process was started with, and take a restart.
    pub restart: Vec<&'static str>,
}

/// Changes a service while it runs. Clones change the same one.
#[derive(Clone)]
pub struct Control(Arc<Inner>);

struct Inner {
    /// One change at a time, the reading of the file included.
    turn: tokio::sync::Mutex<()>,
    /// `None` once the service ends.
    state: Mutex<Option<State>>,
    /// What it was started with, apart from what has changed since.
    started: Config,
    file: OnceLock<Source>,
    last: Mutex<Option<LastReload>>,
    metrics: Arc<Metrics>,
}

/// How the last reload went.
#[derive(Debug, Clone)]
pub(super) struct LastReload {
    pub time: SystemTime,
    /// Why nothing has changed, line by line; none where it went well.
    pub errors: Vec<String>,
}

/// Where the configuration comes from.
struct Source {
    file: PathBuf,
    reloaded: Box<dyn Fn(&Config) + Send + Sync>,
}

/// A service as it is now.
pub(super) struct State {
    /// As the file has it, but for what takes a restart.
    pub config: Config,
    /// Listeners that are not listened on, whatever the configuration says.
    pub closed: HashSet<String>,
    /// What connections to any listener pass.
    pub gate: Arc<ProcessGate>,
    pub listeners: Listeners,
    pub relay: Option<Arc<RelayShared>>,
    /// Each worker's counters.
    pub metrics: Vec<Arc<Metrics>>,
    /// What the core's end of the tunnel goes by.
    pub known: Option<watch::Sender<Known>>,
    /// What the tunnel's end proves itself with.
    pub certificates: Option<watch::Sender<Watch>>,
}

impl State {
    /// Has the service be as `config` says, with these listeners closed. Gives what ends when all workers are.
    ///
    /// # Errors
    /// An address cannot be had. Nothing has changed then.
    pub fn change(&mut self, config: Config, closed: HashSet<String>) -> Result<mpsc::Receiver<Infallible>, BindError> {
        let prepared = self.listeners.prepare(&config, &closed)?;
        let process = config.process();
        self.gate.set(process.limits, Arc::clone(&process.access));
        self.gate.bans().set(process.bans.rules());
        if let Config::Core(core) = &config {
            self.change_core(core, &closed);
        }
        let (done, ended) = mpsc::channel(1);
        self.listeners.change(prepared, &done);
        (self.config, self.closed) = (config, closed);
        // Of one that is gone it is forgotten.
        self.closed.retain(|name| self.listeners.has(name));
        Ok(ended)
    }

    fn change_core(&self, core: &config::Core, closed: &HashSet<String>) {
        // Workers make these again. A scrape before that must find the zeros as well.
        for metrics in &self.metrics {
            let edges = core.edges.iter().map(|edge| edge.name.as_str());
            edges.chain([OTHER_EDGE]).for_each(|edge| drop(metrics.edge(edge)));
            core.game_servers.iter().for_each(|server| drop(metrics.port(server.port)));
        }
        if let Some(relay) = &self.relay {
            relay.reload(core);
        }
        if let Some(known) = &self.known {
            let forwards = core.forwards.iter().map(|forward| &forward.inbound.name);
            let names = forwards.chain(core.relays.iter().map(|relay| &relay.inbound.name));
            let listeners = names.filter(|name| !closed.contains(*name)).cloned().collect();
            known.send_replace(Known { edges: core.edges.clone(), listeners });
        }
    }
}

impl Control {
    pub(super) fn new(state: State, metrics: Arc<Metrics>) -> Self {
        metrics.config_reloaded(Some(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()));
        let (started, state) = (state.config.clone(), Mutex::new(Some(state)));
        let (turn, file, last) = (tokio::sync::Mutex::default(), OnceLock::new(), Mutex::new(None));
        Self(Arc::new(Inner { turn, state, started, file, last, metrics }))
    }

    /// The configuration comes from this file; `reloaded` is told of each that is used from then on.
    pub fn reads(&self, file: PathBuf, reloaded: impl Fn(&Config) + Send + Sync + 'static) {
        // It is told once.
        let _ = self.0.file.set(Source { file, reloaded: Box::new(reloaded) });
    }

    /// Reads the file again, checks it whole, and has the service be as it says. The log and the metrics tell how that went.
    ///
    /// # Errors
    /// Why nothing has changed.
    pub async fn reload(&self) -> Result<Reloaded, ReloadError> {
        let _turn = self.0.turn.lock().await;
        let reloaded = match self.read().await {
            Ok((config, certificates)) => self.apply(config, certificates).await,
            Err(error) => Err(error),
        };
        self.tell(&reloaded);
        reloaded
    }

    /// The same with a configuration that was read already, whose certificates are not read again.
    ///
    /// # Errors
    /// Why nothing has changed.
    pub async fn reload_with(&self, config: Config) -> Result<Reloaded, ReloadError> {
        let _turn = self.0.turn.lock().await;
        let reloaded = self.apply(config, None).await;
        self.tell(&reloaded);
        reloaded
    }

    /// Closes the sockets of a listener on all workers, once they have accepted who waits there. Its connections go on, and
    /// a reload leaves it closed.
    ///
    /// # Errors
    /// There is no such listener.
    pub async fn close_listener(&self, name: &str) -> Result<(), ReloadError> {
        self.set_closed(name, true).await
    }

    /// Listens again where [`Control::close_listener`] has ended that.
    ///
    /// # Errors
    /// There is no such listener, or one of its addresses cannot be had.
    pub async fn open_listener(&self, name: &str) -> Result<(), ReloadError> {
        self.set_closed(name, false).await
    }

    /// All listeners with the addresses that they listen on now.
    pub fn addresses(&self) -> Vec<(String, Vec<SocketAddr>)> {
        self.state().as_ref().map(|state| state.listeners.addresses()).unwrap_or_default()
    }

    /// All listeners as they are now; none once the service ends.
    pub(super) fn listeners(&self) -> Vec<ListenerNow> {
        self.state().as_ref().map(|state| state.listeners.now()).unwrap_or_default()
    }

    /// What `look` gives of the configuration of now; of the one that it was started with once the service ends.
    pub(super) fn config<T>(&self, look: impl FnOnce(&Config) -> T) -> T {
        match &*self.state() {
            Some(state) => look(&state.config),
            None => look(&self.0.started),
        }
    }

    /// What it was started with.
    pub(super) fn started(&self) -> &Config {
        &self.0.started
    }

    /// How the last reload went, where there was one.
    pub(super) fn last_reload(&self) -> Option<LastReload> {
        self.0.last.lock().clone()
    }

    /// Where each forward leads now, by the listener's name, in the order of the file.
    pub fn targets(&self) -> Vec<(String, Arc<Targets>)> {
        self.state().as_ref().map(|state| state.listeners.targets()).unwrap_or_default()
    }

    /// Looks up the names of targets, and checks them, until the end.
    pub(super) fn watch_targets(&self) {
        if let Some(state) = &mut *self.state() {
            state.listeners.watch();
        }
    }

    /// The service ends: nothing changes any more. Gives `shutdown_timeout`.
    pub(super) fn end(&self) -> Duration {
        let state = self.state().take();
        state.map_or(Duration::ZERO, |state| state.config.process().shutdown_timeout)
    }

    fn state(&self) -> MutexGuard<'_, Option<State>> {
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

    /// Reads and checks the file, and the certificates that it names where there is a tunnel.
    async fn read(&self) -> Result<(Config, Option<Watch>), ReloadError> {
        let file = self.0.file.get().map(|source| source.file.clone()).ok_or(ReloadError::NoFile)?;
        let role = self.0.started.role();
        // Long lists take their time, and a file system may hang: nothing else waits for that.
        let reading = spawn_blocking(move || {
            let config = config::load_for(&file, role)?;
            let certificates = super::certificates(&config)?;
            Ok((config, certificates))
        });
        reading.await.unwrap_or(Err(ReloadError::Ended))
    }

    async fn apply(&self, config: Config, certificates: Option<Watch>) -> Result<Reloaded, ReloadError> {
        let restart = self.0.started.needs_restart_for(&config);
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
        Ok(Reloaded { restart })
    }

    fn tell(&self, reloaded: &Result<Reloaded, ReloadError>) {
        let errors = reloaded.as_ref().err().map(ReloadError::lines).unwrap_or_default();
        let last = LastReload { time: SystemTime::now(), errors };
        *self.0.last.lock() = Some(last);
        let at = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.0.metrics.config_reloaded(reloaded.is_ok().then_some(at));
        match reloaded {
            Ok(Reloaded { restart }) if restart.is_empty() => info!("configuration reloaded"),
            Ok(Reloaded { restart }) => {
                let keys = restart.join(", ");
                warn!(keys, "configuration reloaded, but for keys that need a restart to change");
            }
            Err(errors) => error!(%errors, "configuration not reloaded, it goes on as it was"),
        }
    }
}

/// Waits until all workers are as they are to be, or gone.
async fn settled(mut changed: mpsc::Receiver<Infallible>) {
    while changed.recv().await.is_some() {}
}

/// A listener of an edge that leads through the tunnel.
fn through_tunnel(config: &Config) -> Option<&str> {
    let Config::Edge(edge) = config else { return None };
    let leads = |forward: &&config::Forward| {
        forward.forward_to.iter().any(|target| matches!(target.destination, Destination::Core(_)))
    };
    edge.listeners.iter().find(leads).map(|forward| forward.inbound.name.as_str())
}
