//! The targets of a listener: the choice among them, and their health.
//!
//! All workers share them. A connection locks them briefly when it begins and when it ends; a packet costs nothing.
//! Checks and name look-ups run once for the process, on the runtime of its main thread: there they do not compete with
//! players, and a busy worker does not make a target look slow.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Mutex, MutexGuard};
use prometheus::IntGauge;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};
use tracing::{info, warn};

use self::addresses::ResolvedAddresses;
use self::health::{Attempt, HealthChange, TargetHealth};
use self::metrics::TargetChecks;
use crate::admission::{AddressKey, ConnectQueue, ConnectQueues, HostKey};
use crate::connection::source_for;
use crate::metrics::{GaugeGuard, Metrics, PanicCount};
use crate::tunnel::{EdgeTrunks, TrunkPool};
use otproxy_config as config;
use otproxy_config::{CheckConfig, CheckKind, Destination, SendProxy, SourceAddress};
use otproxy_net::{ConnectResult, OutageLog, Source, Stream};
use otproxy_protocol::frame::ClientId;
use otproxy_protocol::player_address::PseudoIpv4;
use otproxy_protocol::trunk::OpenRequest;
use otproxy_protocol::words;

mod addresses;
mod check;
mod health;
pub(super) mod metrics;

pub use health::{FIRST_WAIT, LONGEST_WAIT, LastCheck, TargetSnapshot};

words! {
    /// The result of a check of a target.
    pub enum CheckResult {
        /// The target is up.
        Ok = "ok",
        /// Refused by the target's host.
        Refused = "refused",
        /// No answer in time.
        Timeout = "timeout",
        /// The host or network cannot be reached.
        Unreachable = "unreachable",
        /// The target's name does not resolve.
        Resolve = "resolve",
        /// It took the connection, and closed it or said something else than a relay does.
        NoPong = "no_pong",
        /// Through the tunnel: no trunk is there.
        NoTrunk = "no_trunk",
        /// Any other failure, such as no free descriptor.
        Error = "error",
    }
}

impl From<ConnectResult> for CheckResult {
    fn from(result: ConnectResult) -> Self {
        match result {
            ConnectResult::Ok => Self::Ok,
            ConnectResult::Refused => Self::Refused,
            ConnectResult::Timeout => Self::Timeout,
            ConnectResult::Unreachable => Self::Unreachable,
            ConnectResult::Resolve => Self::Resolve,
            ConnectResult::Handshake
            | ConnectResult::Queue
            | ConnectResult::NoAddress
            | ConnectResult::BadSource
            | ConnectResult::NoPrivilege
            | ConnectResult::Error => Self::Error,
        }
    }
}

words! {
    /// The state that an operator wants for a target.
    pub enum TargetState {
        /// It has connections as far as it is up.
        Ready = "ready",
        /// It has no new connections; those that it has go on, and it is checked.
        Drain = "drain",
        /// It has no new connections and is not checked; those that it has go on.
        Maint = "maint",
    }
}

/// What all listeners share on the way to their targets.
#[derive(Debug, Clone)]
pub struct TargetWays {
    /// The trunks to the core, at an edge with a tunnel.
    pub pool: Option<Arc<TrunkPool>>,
    /// The queues of connects to hosts where they wait for their turn.
    pub connects: Arc<ConnectQueues>,
    /// The addresses by which a server on loopback tells players apart.
    pub pseudo_ipv4: PseudoIpv4,
}

/// The one for whom a target is connected to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConnectFor {
    /// A player, whose connects are counted by this key.
    Player(AddressKey),
    /// This program, which asks for the status. It waits behind players.
    Status,
    /// A player, at a service that is no game server and counts no connects. It waits for no turn.
    Service,
}

/// The targets of one listener.
#[derive(Debug)]
pub struct Targets {
    listener: String,
    ways: TargetWays,
    /// Locked briefly by each connection, and by a reload.
    now: Mutex<CurrentTargets>,
    /// Notifies the watching task that the targets have changed.
    changed: watch::Sender<()>,
    metrics: Arc<Metrics>,
}

/// The targets until the next reload.
#[derive(Debug)]
struct CurrentTargets {
    list: Vec<Arc<Target>>,
    health: TargetHealth,
}

#[derive(Debug)]
struct Target {
    number: usize,
    name: String,
    destination: Destination,
    way: Way,
    check: CheckConfig,
    send_proxy: SendProxy,
    /// The local address of connections without the tunnel.
    source: SourceAddress,
    /// The time limit of a connect.
    within: Duration,
    up: IntGauge,
    outage: Arc<OutageLog<()>>,
    checks: Option<TargetChecks>,
}

/// The route to a target.
#[derive(Debug)]
enum Way {
    Direct(ResolvedAddresses),
    Tunnel,
}

/// A connection to a target, by its kind.
#[derive(Debug)]
pub enum TargetStream {
    /// A connection to this address.
    Direct(Stream, SocketAddr),
    /// A stream to this listener of the core, through the tunnel, and the guard that counts it.
    Tunnel(Stream, String, GaugeGuard),
}

impl Targets {
    /// Makes them from the listener's configuration. Counts in `metrics`, which belong to the process and to no worker.
    pub fn new(config: &config::ForwardConfig, ways: TargetWays, metrics: &Arc<Metrics>) -> Arc<Self> {
        let now = CurrentTargets { list: Vec::new(), health: TargetHealth::new(config.choice, config.check, &[]) };
        let targets = Self {
            listener: config.inbound.name.clone(),
            ways,
            now: Mutex::new(now),
            changed: watch::Sender::default(),
            metrics: Arc::clone(metrics),
        };
        targets.set(config);
        Arc::new(targets)
    }

    /// Changes to the targets of `config`. Knowledge about targets that stay is kept, including their addresses;
    /// connections to removed targets go on.
    pub fn set(&self, config: &config::ForwardConfig) {
        let mut now = self.now();
        let numbers = now.health.set(config.choice, config.check, &config.forward_to);
        let before = std::mem::take(&mut now.list);
        now.list = numbers
            .into_iter()
            .zip(&config.forward_to)
            .map(|(number, target)| {
                let before = before.iter().find(|before| before.number == number);
                let up = now.health.is_up(number) != Some(false);
                let state = now.health.state(number).unwrap_or(TargetState::Ready);
                Arc::new(self.target(number, target, config, before.map(Arc::as_ref), (up, state)))
            })
            .collect();
        for gone in before.iter().filter(|gone| now.list.iter().all(|target| target.name != gone.name)) {
            metrics::forget(&self.metrics, &self.listener, &gone.name);
        }
        drop(now);
        self.changed.send_replace(());
    }

    /// Removes the listener's metrics; its connections go on.
    pub fn forget(&self) {
        for target in &self.now().list {
            metrics::forget(&self.metrics, &self.listener, &target.name);
        }
    }

    fn target(
        &self,
        number: usize,
        target: &config::ForwardTarget,
        config: &config::ForwardConfig,
        before: Option<&Target>,
        (up, state): (bool, TargetState),
    ) -> Target {
        let way = match (&target.destination, before.map(|before| &before.way)) {
            (Destination::Target(_), Some(Way::Direct(known))) => Way::Direct(known.looked_up_each(config.resolve)),
            (Destination::Target(host), _) => Way::Direct(ResolvedAddresses::new(host.clone(), config.resolve)),
            (Destination::Core(_), _) => Way::Tunnel,
        };
        let ping = config.check.kind == CheckKind::Ping && matches!(way, Way::Direct(_));
        let checked = config.check.kind != CheckKind::Off;
        let gauge = self.metrics.target_up.with_label_values(&[&self.listener, &target.name]);
        gauge.set(i64::from(up));
        metrics::show_state(&self.metrics, &self.listener, &target.name, state);
        Target {
            number,
            name: target.name.clone(),
            destination: target.destination.clone(),
            way,
            check: config.check,
            send_proxy: config.send_proxy,
            source: match &target.destination {
                Destination::Target(host) => config.source.towards(host),
                Destination::Core(_) => SourceAddress::Default,
            },
            within: config.inbound.timeouts.connect,
            up: gauge,
            outage: before.map(|before| Arc::clone(&before.outage)).unwrap_or_default(),
            checks: checked.then(|| TargetChecks::new(&self.metrics, &self.listener, &target.name, ping)),
        }
    }

    /// Returns the targets as an operator sees them, in the order of the file.
    pub fn list(&self) -> Vec<TargetSnapshot> {
        self.now().health.list()
    }

    /// Sets the state that the operator wants for the target of this name, until set again; a reload keeps it. Returns
    /// whether there is such a target.
    pub fn set_state(&self, name: &str, state: TargetState) -> bool {
        let (target, change) = {
            let mut now = self.now();
            let Some((number, change)) = now.health.set_state(name, state) else { return false };
            (now.list.iter().find(|target| target.number == number).map(Arc::clone), change)
        };
        metrics::show_state(&self.metrics, &self.listener, name, state);
        if let Some(target) = target {
            let (listener, address) = (&self.listener, &target.destination);
            info!(listener, target = name, %address, %state, "the target's state is set");
            self.report(&target, change, state.as_str());
        }
        true
    }

    /// Chooses the target that a connection of `player` tries next, after those in `tried`. `None` once it has tried
    /// all that are ready.
    pub fn choose(self: &Arc<Self>, player: IpAddr, tried: &mut Vec<usize>) -> Option<ChosenTarget> {
        let mut now = self.now();
        let next = now.health.choose(HostKey::from(player), tried, Instant::now())?;
        let target = now.list.iter().find(|target| target.number == next.target).map(Arc::clone)?;
        tried.push(next.target);
        Some(ChosenTarget { targets: Arc::clone(self), target, tried: next })
    }

    /// Returns whether connections lead through the tunnel.
    pub fn go_by_tunnel(&self) -> bool {
        self.now().list.iter().any(|target| matches!(target.way, Way::Tunnel))
    }

    /// Returns whether connections lead to a listener of the core that takes links, each of which has to go to the worker that
    /// owns its client. The trunks know it once there is one.
    pub fn go_by_client(&self, trunks: &EdgeTrunks) -> bool {
        let of_links =
            |target: &Arc<Target>| matches!(&target.destination, Destination::Core(name) if trunks.by_client(name));
        self.now().list.iter().any(of_links)
    }

    /// Returns their destinations, in the order of the file.
    pub fn destinations(&self) -> Vec<String> {
        self.now().list.iter().map(|target| target.destination.to_string()).collect()
    }

    /// Resolves and checks targets, until dropped.
    pub async fn watch(self: Arc<Self>) {
        let mut changed = self.changed.subscribe();
        loop {
            changed.borrow_and_update();
            let list = self.now().list.clone();
            let mut tasks = JoinSet::new();
            for target in list {
                if let Way::Direct(_) = &target.way {
                    tasks.spawn(Arc::clone(&self).keep_addresses(Arc::clone(&target), self.metrics.panic_count()));
                }
                if target.checks.is_some() {
                    tasks.spawn(Arc::clone(&self).keep_checking(target, self.metrics.panic_count()));
                }
            }
            // This does not fail, as the sender is held here. Once dropped, the tasks end.
            if changed.changed().await.is_err() {
                return;
            }
        }
    }

    async fn keep_addresses(self: Arc<Self>, target: Arc<Target>, _panics: PanicCount) {
        if let Way::Direct(addresses) = &target.way {
            let lookup = async |target: config::HostPort| otproxy_net::lookup((&target.host, target.port)).await;
            addresses.refresh(&self.listener, lookup).await;
        }
    }

    async fn keep_checking(self: Arc<Self>, target: Arc<Target>, _panics: PanicCount) {
        let Target { way, destination, check, send_proxy, source, within, checks: Some(checks), .. } = &*target else {
            return;
        };
        let source = match destination {
            Destination::Target(host) => source.of_checks(host),
            Destination::Core(_) => None,
        };
        let mut ticks = interval(check.inter);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            if self.now().health.state(target.number) == Some(TargetState::Maint) {
                continue;
            }
            // One that does not have its turn before the next one says nothing.
            if let Some(queue) = self.queue(&target)
                && queue.turn_behind((tokio::time::Instant::now() + check.inter).into_std()).await.is_err()
            {
                continue;
            }
            let checked = match way {
                Way::Direct(addresses) => {
                    check::check(addresses, check.kind, *send_proxy, source.into(), *within).await
                }
                // The core answers on each, or it is given up.
                Way::Tunnel => match &self.ways.pool {
                    Some(pool) if pool.alive() > 0 => Ok(None),
                    _ => Err(CheckResult::NoTrunk),
                },
            };
            let result = checked.err().unwrap_or(CheckResult::Ok);
            let round_trip = checked.ok().flatten();
            checks.checked(result, round_trip);
            self.now().health.record_check(target.number, LastCheck { result, at: Instant::now(), round_trip });
            // As in `ChosenTarget::failed`.
            if result != CheckResult::Error {
                let change = self.now().health.checked(target.number, checked.is_ok());
                self.report(&target, change, result.as_str());
            }
        }
    }

    /// Returns the queue in which connects to a target wait for their turn.
    fn queue(&self, target: &Target) -> Option<Arc<ConnectQueue>> {
        match &target.destination {
            Destination::Target(host) => self.ways.connects.of(host),
            Destination::Core(_) => None,
        }
    }

    /// Logs a change, as far as that goes, and shows it in the metrics.
    fn report(&self, target: &Target, change: Option<HealthChange>, reason: &str) {
        let (Some(change), Target { name, destination, up, outage, .. }) = (change, target) else { return };
        let (listener, now) = (&self.listener, Instant::now());
        match change {
            HealthChange::Up => {
                if let Some(seconds) = outage.worked(now) {
                    info!(listener, target = name, address = %destination, seconds, "the target is up");
                }
            }
            HealthChange::Down => {
                if let Some(suppressed) = outage.failed((), now) {
                    warn!(listener, target = name, address = %destination, reason, suppressed, "the target is down");
                }
            }
        }
        up.set(i64::from(change == HealthChange::Up));
    }

    fn now(&self) -> MutexGuard<'_, CurrentTargets> {
        // Each change is whole before anything that can panic.
        self.now.lock()
    }
}

/// The player whom a target is connected to for, as a target may have to know.
#[derive(Debug, Clone, Copy)]
pub struct OnBehalf<'a> {
    /// The player.
    pub player: SocketAddr,
    /// The address that the player connected to.
    pub local: SocketAddr,
    /// The way through the tunnel.
    pub tunnel: TunnelWay<'a>,
}

/// The way of a connection through the tunnel.
#[derive(Debug, Clone, Copy)]
pub struct TunnelWay<'a> {
    /// This worker's trunks, or the reason why there are none.
    pub trunks: Result<&'a EdgeTrunks, ConnectResult>,
    /// The client, if the connection is a link that had to tell it.
    pub client: Option<ClientId>,
}

/// A target that was chosen for a connection, and counts as one of its connections while this lives.
#[derive(Debug)]
pub struct ChosenTarget {
    targets: Arc<Targets>,
    target: Arc<Target>,
    tried: Attempt,
}

impl ChosenTarget {
    /// Waits for the turn to connect, until `until` at the most.
    ///
    /// # Errors
    /// Returns [`ConnectResult::Queue`] if too many wait.
    pub async fn turn(&self, connect_for: ConnectFor, until: tokio::time::Instant) -> Result<(), ConnectResult> {
        let Some(queue) = self.targets.queue(&self.target) else { return Ok(()) };
        let turn = match connect_for {
            ConnectFor::Service => return Ok(()),
            ConnectFor::Status => queue.turn_behind(until.into_std()).await,
            ConnectFor::Player(key) => {
                let place = queue.join(key, tokio::time::Instant::now().into_std(), until.into_std());
                match place {
                    Ok(place) => place.turn().await,
                    Err(full) => Err(full),
                }
            }
        };
        turn.map_err(|_| ConnectResult::Queue)
    }

    /// Connects on behalf of a player.
    ///
    /// # Errors
    /// Returns the result of a failed connect.
    pub async fn connect(&self, behalf: OnBehalf<'_>) -> Result<TargetStream, ConnectResult> {
        let OnBehalf { player: from, local, tunnel } = behalf;
        let player = from.ip();
        let Target { way, destination, source, within, .. } = &*self.target;
        match (way, destination) {
            (Way::Direct(addresses), _) => {
                let source = match source {
                    // The status is asked for from 127.0.0.1, which game servers answer without limit.
                    SourceAddress::LoopbackPerPlayer | SourceAddress::Player
                        if player.to_canonical() == Ipv4Addr::LOCALHOST =>
                    {
                        Source::Kernel
                    }
                    source => source_for(*source, player, &self.targets.ways.pseudo_ipv4),
                };
                let (stream, address) = addresses.connect(source, *within).await?;
                Ok(TargetStream::Direct(plain(stream)?, address))
            }
            (Way::Tunnel, Destination::Core(listener)) => {
                let request = OpenRequest { listener: listener.clone(), player: from, destination: local };
                let (stream, counted) = tunnel.trunks?.open(&request, tunnel.client, *within).await?;
                Ok(TargetStream::Tunnel(stream, request.listener, counted))
            }
            (Way::Tunnel, Destination::Target(_)) => Err(ConnectResult::Error),
        }
    }

    /// Returns the target's name in logs.
    pub fn destination(&self) -> String {
        self.target.destination.to_string()
    }

    /// Records that the target accepted the connection.
    pub fn connected(&self) {
        let change = self.targets.now().health.connected(self.tried);
        self.targets.report(&self.target, change, ConnectResult::Ok.as_str());
    }

    /// Records that the target accepted the connection, and gave no answer that can be used.
    pub fn unanswered(&self) {
        let change = self.targets.now().health.failed(self.tried, Instant::now());
        self.targets.report(&self.target, change, "no_answer");
    }

    /// Records that the target could not be reached.
    pub fn failed(&self, result: ConnectResult) {
        if result.is_of_this_host() {
            return;
        }
        let change = self.targets.now().health.failed(self.tried, Instant::now());
        self.targets.report(&self.target, change, result.as_str());
    }
}

impl Drop for ChosenTarget {
    fn drop(&mut self) {
        self.targets.now().health.release(self.tried.target);
    }
}

fn plain(stream: TcpStream) -> Result<Stream, ConnectResult> {
    Stream::new(stream).map_err(|error| ConnectResult::of(&error))
}

#[cfg(test)]
mod tests;
