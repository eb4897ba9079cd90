//! The targets of a listener: which one a connection leads to, and whether they are up.
//!
//! All workers share them. A connection looks when it begins and when it ends, behind a lock that is held for a look; a packet
//! costs nothing. Checks and look-ups of names run once for the process, on the runtime of its main thread: there they
//! compete with no player, and a busy worker does not make a target look slow.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use prometheus::IntGauge;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};
use tracing::{info, warn};

use self::addresses::Addresses;
use self::standings::{Change, Standings, Try};
use crate::config::{self, Check, CheckKind, Destination, SendProxy};
use crate::limits::AddressKey;
use crate::metrics::{Metrics, PanicCount, TargetChecks};
use crate::net::{self, Stream};
use crate::reason::{CheckResult, ConnectResult};
use crate::tunnel::Pool;

mod addresses;
mod check;
mod standings;

pub use standings::{FIRST_WAIT, LONGEST_WAIT};

/// The targets of one listener.
#[derive(Debug)]
pub struct Targets {
    listener: String,
    check: Check,
    send_proxy: SendProxy,
    within: Duration,
    list: Vec<Target>,
    standings: Mutex<Standings>,
    metrics: Arc<Metrics>,
}

#[derive(Debug)]
struct Target {
    name: String,
    destination: Destination,
    way: Way,
    up: IntGauge,
    checks: Option<TargetChecks>,
}

/// How a target is reached.
#[derive(Debug)]
enum Way {
    Direct(Addresses),
    Tunnel(Option<Arc<Pool>>),
}

/// What a connection to a target is.
#[derive(Debug)]
pub enum Connected {
    /// To this address.
    Direct(Stream, SocketAddr),
    /// To this listener of the core, through the tunnel.
    Tunnel(Stream, String),
}

impl Targets {
    /// From the listener's configuration; `pool` has the connections to the core where there is a tunnel. Counts in `metrics`,
    /// which are the process' and no worker's.
    pub fn new(config: &config::Forward, pool: Option<Arc<Pool>>, metrics: &Arc<Metrics>) -> Arc<Self> {
        let listener = &config.inbound.name;
        let target = |target: &config::ForwardTarget| {
            let up = metrics.target_up(listener, &target.name);
            up.set(1);
            let way = match &target.destination {
                Destination::Target(host) => Way::Direct(Addresses::new(host.clone(), config.resolve)),
                Destination::Core(_) => Way::Tunnel(pool.clone()),
            };
            let ping = config.check.kind == CheckKind::Ping && matches!(way, Way::Direct(_));
            let checked = config.check.kind != CheckKind::Off;
            let checks = checked.then(|| metrics.target_checks(listener, &target.name, ping));
            Target { name: target.name.clone(), destination: target.destination.clone(), way, up, checks }
        };
        Arc::new(Self {
            listener: listener.clone(),
            check: config.check,
            send_proxy: config.send_proxy,
            within: config.inbound.connect_timeout,
            list: config.forward_to.iter().map(target).collect(),
            standings: Mutex::new(Standings::new(config.choice, config.check, &config.forward_to)),
            metrics: Arc::clone(metrics),
        })
    }

    /// The target that a connection of `player` tries next, having tried those in `tried`. `None` where it has tried all.
    pub fn next(self: &Arc<Self>, player: IpAddr, tried: &mut Vec<usize>) -> Option<Attempt> {
        let next = self.standings().next(AddressKey::from(player), tried, Instant::now())?;
        tried.push(next.target);
        Some(Attempt { targets: Arc::clone(self), tried: next })
    }

    /// Looks up the names of targets, and checks them, until it is dropped.
    pub async fn watch(self: Arc<Self>) {
        let mut tasks = JoinSet::new();
        for (index, target) in self.list.iter().enumerate() {
            if let Way::Direct(_) = &target.way {
                tasks.spawn(Arc::clone(&self).keep_addresses(index, self.metrics.panic_count()));
            }
            if target.checks.is_some() {
                tasks.spawn(Arc::clone(&self).keep_checking(index, self.metrics.panic_count()));
            }
        }
        while tasks.join_next().await.is_some() {}
    }

    async fn keep_addresses(self: Arc<Self>, index: usize, _panics: PanicCount) {
        if let Some(Target { way: Way::Direct(addresses), .. }) = self.list.get(index) {
            addresses.keep(&self.listener, net::lookup).await;
        }
    }

    async fn keep_checking(self: Arc<Self>, index: usize, _panics: PanicCount) {
        let Some(Target { way, checks: Some(checks), .. }) = self.list.get(index) else { return };
        let mut ticks = interval(self.check.inter);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut made = 0;
        loop {
            ticks.tick().await;
            let checked = match way {
                Way::Direct(addresses) => check::check(addresses, self.check.kind, self.send_proxy, self.within).await,
                Way::Tunnel(pool) => has_spare(pool.as_deref(), &mut made).map(|()| None),
            };
            let result = checked.err().unwrap_or(CheckResult::Ok);
            checks.checked(result, checked.ok().flatten());
            // As in `Attempt::failed`.
            if result != CheckResult::Error {
                let change = self.standings().checked(index, checked.is_ok());
                self.tell(index, change, result.as_str());
            }
        }
    }

    /// Logs a change, and shows it in the metrics.
    fn tell(&self, index: usize, change: Option<Change>, reason: &str) {
        let (Some(change), Some(Target { name, destination, up, .. })) = (change, self.list.get(index)) else { return };
        let listener = &self.listener;
        match change {
            Change::Up => info!(listener, target = name, address = %destination, "the target is up"),
            Change::Down => warn!(listener, target = name, address = %destination, reason, "the target is down"),
        }
        up.set(i64::from(change == Change::Up));
    }

    fn standings(&self) -> MutexGuard<'_, Standings> {
        // Each change is whole before anything that can panic.
        self.standings.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether the tunnel has spare connections, or had new ones since it was asked last, all of which are in use by now. That
/// takes none of them from a player, and each has had the core's answer.
fn has_spare(pool: Option<&Pool>, made: &mut usize) -> Result<(), CheckResult> {
    let (spare, all) = pool.map_or((0, 0), Pool::spare);
    let more = std::mem::replace(made, all) != all;
    if spare > 0 || more { Ok(()) } else { Err(CheckResult::NoSpare) }
}

/// A target that was chosen for a connection. It counts as one of the target's connections while this lives.
#[derive(Debug)]
pub struct Attempt {
    targets: Arc<Targets>,
    tried: Try,
}

impl Attempt {
    /// Connects.
    ///
    /// # Errors
    /// What it ended with.
    pub async fn connect(&self) -> Result<Connected, ConnectResult> {
        let Targets { list, within, .. } = &*self.targets;
        let Target { way, destination, .. } = list.get(self.tried.target).ok_or(ConnectResult::Error)?;
        match (way, destination) {
            (Way::Direct(addresses), _) => {
                let (stream, address) = addresses.connect(*within).await?;
                Ok(Connected::Direct(plain(stream)?, address))
            }
            (Way::Tunnel(Some(pool)), Destination::Core(listener)) => {
                let stream = pool.take(*within).await?.attach().map_err(|_| ConnectResult::Error)?;
                Ok(Connected::Tunnel(stream, listener.clone()))
            }
            (Way::Tunnel(_), _) => Err(ConnectResult::Error),
        }
    }

    /// What the target is called in logs.
    pub fn destination(&self) -> String {
        self.targets.list.get(self.tried.target).map(|target| target.destination.to_string()).unwrap_or_default()
    }

    /// The target has taken the connection.
    pub fn connected(&self) {
        let change = self.targets.standings().connected(self.tried);
        self.targets.tell(self.tried.target, change, ConnectResult::Ok.as_str());
    }

    /// The target could not be reached.
    pub fn failed(&self, result: ConnectResult) {
        // Most often this process has no descriptor or port left, which says nothing of the target.
        if result == ConnectResult::Error {
            return;
        }
        let change = self.targets.standings().failed(self.tried, Instant::now());
        self.targets.tell(self.tried.target, change, result.as_str());
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        self.targets.standings().left(self.tried.target);
    }
}

fn plain(stream: TcpStream) -> Result<Stream, ConnectResult> {
    Stream::new(stream).map_err(|error| ConnectResult::of(&error))
}

#[cfg(test)]
mod tests;
