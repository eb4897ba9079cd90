//! The listeners of a service, and their changes while connections go on.

use std::collections::{HashMap, HashSet};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

use super::running::{ListenerParts, Running};
use super::worker::{DoneSignal, ListenerPlan, ListenerPlans};
use crate::admission::{InboundShared, ListenerMetrics};
use crate::forward::Targets;
use crate::metrics::Metrics;
use otproxy_config as config;
use otproxy_config::{Config, ListenerConfig, ListenerType};
use otproxy_net::{BindError, Inherited, bind_beside, is_left_out};

/// All listeners, which are the same on all workers.
pub(super) struct ListenerSet {
    making: ListenerParts,
    list: Vec<Listening>,
    workers: Vec<mpsc::UnboundedSender<ListenerPlan>>,
    /// True if targets are watched, which begins when the service runs.
    watching: bool,
    /// Sockets of the predecessor, until listeners have taken theirs.
    inherited: Inherited,
}

/// One listener.
struct Listening {
    running: Running,
    config: ListenerConfig,
    addresses: Vec<Address>,
    /// The task that watches its targets.
    watching: Option<AbortOnDropHandle<()>>,
    /// The task that reads its certificates again.
    certificates: Option<AbortOnDropHandle<()>>,
}

/// The present state of a listener.
#[derive(Debug, Clone)]
pub(super) struct ListenerSnapshot {
    pub name: String,
    pub kind: ListenerType,
    /// The addresses that it listens on; for a closed listener, those of before and after.
    pub addresses: Vec<SocketAddr>,
    /// Connections now.
    pub open: usize,
    /// The limit of connections.
    pub limit: Option<usize>,
}

/// An address of a listener.
#[derive(Debug, Clone)]
struct Address {
    /// The address in the file.
    asked: SocketAddr,
    /// The address with the port that the kernel chose.
    bound: SocketAddr,
    /// The workers' sockets, held here too, so that they can be left to a successor. They are closed when both let them go.
    sockets: Arc<Vec<TcpListener>>,
}

/// New listeners, all of whose addresses are bound.
pub(super) struct PreparedListeners {
    listeners: Vec<(ListenerConfig, Vec<Address>)>,
    /// `sockets[worker]`, of the new addresses.
    sockets: Vec<WorkerSockets>,
}

/// The sockets of new addresses that a worker gets.
#[derive(Default)]
struct WorkerSockets {
    /// To accept on from now on.
    new: Vec<(SocketAddr, TcpListener)>,
    /// To accept on until nobody waits there.
    beyond: Vec<(SocketAddr, TcpListener)>,
}

/// Returns the listeners in the order in which they are listed: by kind, and in each kind as in the file.
fn listeners_of(config: &Config) -> Vec<ListenerConfig> {
    let mut listeners = config.listeners().to_vec();
    listeners.sort_by_key(|listener| listener.inbound().kind);
    listeners
}

/// Returns no sockets for each worker.
fn no_sockets(workers: usize) -> Vec<WorkerSockets> {
    (0..workers).map(|_| WorkerSockets::default()).collect()
}

impl ListenerSet {
    /// Makes an empty set, which takes `inherited` sockets in place of new ones; also returns the plans for each worker.
    pub fn new(making: ListenerParts, inherited: Inherited) -> (Self, Vec<ListenerPlans>) {
        let (workers, plans) = making.metrics.iter().map(|_| mpsc::unbounded_channel()).unzip();
        (Self { making, list: Vec::new(), workers, watching: false, inherited }, plans)
    }

    /// Returns whether there is one of this name.
    pub fn has(&self, name: &str) -> bool {
        self.list.iter().any(|listening| listening.running.name() == name)
    }

    /// Returns all names with the addresses that are listened on.
    pub fn addresses(&self) -> Vec<(String, Vec<SocketAddr>)> {
        let bound = |listening: &Listening| listening.addresses.iter().map(|address| address.bound).collect();
        self.list.iter().map(|listening| (listening.running.name().to_owned(), bound(listening))).collect()
    }

    /// Returns the present state of all: forwards in the order of the configuration, then relays.
    pub fn now(&self) -> Vec<ListenerSnapshot> {
        let now = |listening: &Listening| {
            let config = listening.config.inbound();
            let mut addresses: Vec<_> = listening.addresses.iter().map(|address| address.bound).collect();
            if addresses.is_empty() {
                // It is closed for now.
                addresses.clone_from(&config.listen);
            }
            ListenerSnapshot {
                name: config.name.clone(),
                kind: config.kind,
                addresses,
                open: listening.running.inbound().connections(),
                limit: config.limits.connections,
            }
        };
        self.list.iter().map(now).collect()
    }

    /// Returns the listeners of links, by name.
    pub fn links(&self) -> HashMap<String, Arc<InboundShared>> {
        let links = self.list.iter().filter(|listening| listening.config.inbound().kind == ListenerType::Relay);
        links.map(|listening| (listening.running.name().to_owned(), Arc::clone(listening.running.inbound()))).collect()
    }

    /// Returns the targets of each forward, by its name.
    pub fn targets(&self) -> Vec<(String, Arc<Targets>)> {
        let targets = |listening: &Listening| {
            let targets = Arc::clone(listening.running.forward()?.targets());
            Some((listening.running.name().to_owned(), targets))
        };
        self.list.iter().filter_map(targets).collect()
    }

    /// Returns the sockets of the predecessor that no listener has taken.
    pub fn not_taken(&mut self) -> Inherited {
        std::mem::take(&mut self.inherited)
    }

    /// Returns the sockets of all listeners once more, for a successor that may not come so far.
    ///
    /// # Errors
    /// Fails if no descriptor is left.
    pub fn sockets(&self) -> io::Result<Vec<TcpListener>> {
        let addresses = self.list.iter().flat_map(|listening| &listening.addresses);
        addresses.flat_map(|address| address.sockets.iter()).map(TcpListener::try_clone).collect()
    }

    /// Returns the sockets of all listeners, for a successor.
    pub fn into_sockets(self) -> Vec<TcpListener> {
        let addresses = self.list.into_iter().flat_map(|listening| listening.addresses);
        addresses.filter_map(|address| Arc::into_inner(address.sockets)).flatten().collect()
    }

    /// Binds the new addresses of `config`, and changes nothing. Listeners in `closed` are not bound.
    ///
    /// An address that stays keeps its sockets, even if another listener has it now.
    ///
    /// # Errors
    /// Returns the first address that cannot be bound.
    pub fn prepare(&mut self, config: &Config, closed: &HashSet<String>) -> Result<PreparedListeners, BindError> {
        let inherited = &mut self.inherited;
        let mut there: Vec<(&str, Address)> = Vec::new();
        for listening in &self.list {
            there.extend(listening.addresses.iter().map(|address| (listening.running.name(), address.clone())));
        }
        let own: Vec<SocketAddr> = there.iter().map(|(_, address)| address.bound).collect();
        let mut prepared = PreparedListeners { listeners: Vec::new(), sockets: no_sockets(self.workers.len()) };
        for listener in listeners_of(config) {
            let config::InboundConfig { name, listen, .. } = listener.inbound();
            let mut addresses = Vec::new();
            let open = listen.iter().filter(|_| !closed.contains(name));
            for &asked in open.filter(|asked| !is_left_out(name, **asked, listen)) {
                // Each listener gets another port for 0.
                let same =
                    |(of, address): &(&str, Address)| address.asked == asked && (asked.port() != 0 || of == name);
                if let Some(place) = there.iter().position(same) {
                    addresses.push(there.remove(place).1);
                    continue;
                }
                let bound = bind_beside(name, &[asked], self.workers.len(), &own, inherited)?;
                let Some(&address) = bound.addresses.first() else { continue };
                let held = bound.sockets.iter().flatten().map(TcpListener::try_clone).collect::<io::Result<_>>();
                let held = held.map_err(|error| BindError::new(name, address, error))?;
                addresses.push(Address { asked, bound: address, sockets: Arc::new(held) });
                for (worker, sockets) in prepared.sockets.iter_mut().zip(bound.sockets) {
                    worker.new.extend(sockets.into_iter().map(|socket| (address, socket)));
                }
                let beyond = bound.beyond.into_iter().map(|socket| (address, socket));
                prepared
                    .sockets
                    .iter_mut()
                    .take(1)
                    .zip([beyond])
                    .for_each(|(worker, beyond)| worker.beyond.extend(beyond));
            }
            prepared.listeners.push((listener, addresses));
        }
        Ok(prepared)
    }

    /// Prepares the listeners of a `config` that differs from the present one in no address. It takes no descriptor.
    pub fn keep(&self, config: &Config) -> PreparedListeners {
        let listeners = listeners_of(config).into_iter().map(|listener| {
            let there = self.list.iter().find(|listening| listening.running.name() == listener.inbound().name);
            let addresses = there.map(|listening| listening.addresses.clone()).unwrap_or_default();
            (listener, addresses)
        });
        PreparedListeners { listeners: listeners.collect(), sockets: no_sockets(self.workers.len()) }
    }

    /// Replaces all listeners by these, of which those in `closed` take nothing. `done` is dropped when all workers have them.
    pub fn change(
        &mut self,
        PreparedListeners { listeners, sockets }: PreparedListeners,
        closed: &HashSet<String>,
        done: &DoneSignal,
    ) {
        let mut before = std::mem::take(&mut self.list);
        for (config, addresses) in listeners {
            let name = &config.inbound().name;
            let place = before.iter().position(|listening| listening.running.name() == name);
            let listening = self.listening(config, addresses, place.map(|place| before.swap_remove(place)));
            self.list.push(listening);
        }
        before.iter().for_each(Listening::forget);
        // Their sockets are the workers' alone from here on, which close them.
        drop(before);
        let all = || {
            self.list.iter().map(|listening| {
                let addresses = listening.addresses.iter().map(|address| address.bound).collect();
                (listening.running.clone(), addresses)
            })
        };
        for (worker, WorkerSockets { new, beyond }) in self.workers.iter().zip(sockets) {
            // This fails only if the worker is gone, during a shutdown.
            let _ = worker.send(ListenerPlan {
                listeners: all().collect(),
                closed: closed.clone(),
                sockets: new,
                beyond,
                done: done.clone(),
            });
        }
    }

    fn listening(&self, config: ListenerConfig, addresses: Vec<Address>, before: Option<Listening>) -> Listening {
        // Workers make these again. A scrape before that must find the zeros as well.
        let metrics = &self.making.metrics;
        metrics.iter().for_each(|metrics| drop(ListenerMetrics::new(metrics, &config.inbound().name)));
        let was = before.as_ref().map(|before| (&before.running, &before.config));
        // Listeners that others refer to come first.
        let others = |name: &str| {
            let named = self.list.iter().find(|listening| listening.running.name() == name)?;
            named.running.forward().cloned()
        };
        let running = Running::new(&config, &self.making, was, others);
        let (mut watching, mut certificates) = (None, None);
        match (running.forward(), before) {
            (Some(_), Some(before)) => (watching, certificates) = (before.watching, before.certificates),
            (None, Some(before)) => before.forget(),
            (_, None) => {}
        }
        // It keeps the files of the listener that it began with, whatever those are.
        certificates = certificates.filter(|_| running.web().is_some());
        if let Some(web) = running.web() {
            metrics.iter().for_each(|metrics| web.make_counters(metrics));
        }
        if let Some(forward) = running.forward() {
            metrics.iter().for_each(|metrics| drop(forward.status_metrics(metrics)));
        }
        let mut listening = Listening { running, config, addresses, watching, certificates };
        if self.watching {
            listening.watch(&self.making.own_metrics);
        }
        listening
    }

    /// Resolves and checks targets from now on, on the runtime that it is called in.
    pub fn watch(&mut self) {
        self.watching = true;
        let metrics = &self.making.own_metrics;
        self.list.iter_mut().for_each(|listening| listening.watch(metrics));
    }
}

impl Listening {
    fn watch(&mut self, metrics: &Arc<Metrics>) {
        if let (Some(web), None) = (self.running.web(), &self.certificates) {
            self.certificates = Some(AbortOnDropHandle::new(tokio::spawn(web.keep_certificates(metrics))));
        }
        if let (Some(forward), None) = (self.running.forward(), &self.watching) {
            self.watching = Some(AbortOnDropHandle::new(tokio::spawn(forward.watch_targets())));
        }
    }

    /// Removes the listener's metrics; its connections go on.
    fn forget(&self) {
        if let Some(forward) = self.running.forward() {
            forward.forget();
        }
    }
}
