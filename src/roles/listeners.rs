//! The listeners of a service, and their changes while connections go on.

use std::collections::HashSet;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

use super::worker::{Done, Plan, Plans, Shared};
use crate::access_log::AccessLog;
use crate::admission::{InboundShared, ListenerMetrics, ProcessGate};
use crate::forward::{ForwardShared, HeaderFor, Targets};
use crate::metrics::Metrics;
use crate::tunnel::Pool;
use otproxy_config as config;
use otproxy_config::{Config, Kind};
use otproxy_net::{BindError, bind_beside};

/// The parts that all listeners of a service share.
pub(super) struct Making {
    pub header_for: HeaderFor,
    /// The pool of connections to the core, at an edge with a tunnel.
    pub pool: Option<Arc<Pool>>,
    /// The admission that all listeners share.
    pub gate: Arc<ProcessGate>,
    pub access_log: Option<AccessLog>,
    /// Each worker's counters.
    pub metrics: Vec<Arc<Metrics>>,
    /// Counters of events outside of the workers.
    pub own_metrics: Arc<Metrics>,
}

/// All listeners, which are the same on all workers.
pub(super) struct Listeners {
    making: Making,
    list: Vec<Listening>,
    workers: Vec<mpsc::UnboundedSender<Plan>>,
    /// True if targets are watched, which begins when the service runs.
    watching: bool,
}

/// One listener.
struct Listening {
    shared: Shared,
    config: Listener,
    addresses: Vec<Address>,
    /// The task that watches its targets.
    watching: Option<AbortOnDropHandle<()>>,
}

/// The present state of a listener.
#[derive(Debug, Clone)]
pub(super) struct ListenerNow {
    pub name: String,
    pub kind: Kind,
    /// The addresses that it listens on; for a closed listener, those of before and after.
    pub addresses: Vec<SocketAddr>,
    /// Connections now.
    pub open: usize,
    /// The limit of connections.
    pub limit: Option<usize>,
}

/// A listener's configuration, by kind.
#[derive(Clone)]
enum Listener {
    Forward(config::Forward),
    Relay(config::Relay),
}

/// An address of a listener.
#[derive(Debug, Clone, Copy)]
struct Address {
    /// The address in the file.
    asked: SocketAddr,
    /// The address with the port that the kernel chose.
    bound: SocketAddr,
}

/// New listeners, all of whose addresses are bound.
pub(super) struct Prepared {
    listeners: Vec<(Listener, Vec<Address>)>,
    /// `sockets[worker]`, of the new addresses.
    sockets: Vec<Vec<(SocketAddr, TcpListener)>>,
}

impl Listener {
    fn inbound(&self) -> &config::Inbound {
        match self {
            Self::Forward(forward) => &forward.inbound,
            Self::Relay(relay) => &relay.inbound,
        }
    }
}

fn listeners_of(config: &Config) -> Vec<Listener> {
    let (forwards, relays) = match config {
        Config::Edge(edge) => (&edge.listeners, &[][..]),
        Config::Core(core) => (&core.forwards, core.relays.as_slice()),
    };
    let forwards = forwards.iter().cloned().map(Listener::Forward);
    forwards.chain(relays.iter().cloned().map(Listener::Relay)).collect()
}

impl Listeners {
    /// Makes an empty set; also returns the plans for each worker.
    pub fn new(making: Making) -> (Self, Vec<Plans>) {
        let (workers, plans) = making.metrics.iter().map(|_| mpsc::unbounded_channel()).unzip();
        (Self { making, list: Vec::new(), workers, watching: false }, plans)
    }

    /// Returns whether there is one of this name.
    pub fn has(&self, name: &str) -> bool {
        self.list.iter().any(|listening| listening.shared.name() == name)
    }

    /// Returns all names with the addresses that are listened on.
    pub fn addresses(&self) -> Vec<(String, Vec<SocketAddr>)> {
        let bound = |listening: &Listening| listening.addresses.iter().map(|address| address.bound).collect();
        self.list.iter().map(|listening| (listening.shared.name().to_owned(), bound(listening))).collect()
    }

    /// Returns the present state of all: forwards in the order of the configuration, then relays.
    pub fn now(&self) -> Vec<ListenerNow> {
        let now = |listening: &Listening| {
            let config = listening.config.inbound();
            let mut addresses: Vec<_> = listening.addresses.iter().map(|address| address.bound).collect();
            if addresses.is_empty() {
                // It is closed for now.
                addresses.clone_from(&config.listen);
            }
            ListenerNow {
                name: config.name.clone(),
                kind: match listening.config {
                    Listener::Forward(_) => Kind::Forward,
                    Listener::Relay(_) => Kind::Relay,
                },
                addresses,
                open: listening.shared.inbound().connections(),
                limit: config.limits.connections,
            }
        };
        self.list.iter().map(now).collect()
    }

    /// Returns the targets of each forward, by its name.
    pub fn targets(&self) -> Vec<(String, Arc<Targets>)> {
        let targets = |listening: &Listening| match &listening.shared {
            Shared::Forward(forward) => Some((listening.shared.name().to_owned(), Arc::clone(forward.targets()))),
            Shared::Relay(_) => None,
        };
        self.list.iter().filter_map(targets).collect()
    }

    /// Binds the new addresses of `config`, and changes nothing. Listeners in `closed` are not bound.
    ///
    /// An address that stays keeps its sockets, even if another listener has it now.
    ///
    /// # Errors
    /// Returns the first address that cannot be bound.
    pub fn prepare(&self, config: &Config, closed: &HashSet<String>) -> Result<Prepared, BindError> {
        let mut there: Vec<(&str, Address)> = Vec::new();
        for listening in &self.list {
            there.extend(listening.addresses.iter().map(|address| (listening.shared.name(), *address)));
        }
        let own: Vec<SocketAddr> = there.iter().map(|(_, address)| address.bound).collect();
        let mut prepared =
            Prepared { listeners: Vec::new(), sockets: self.workers.iter().map(|_| Vec::new()).collect() };
        for listener in listeners_of(config) {
            let config::Inbound { name, listen, .. } = listener.inbound();
            let mut addresses = Vec::new();
            for &asked in listen.iter().filter(|_| !closed.contains(name)) {
                // Each listener gets another port for 0.
                let same =
                    |(of, address): &(&str, Address)| address.asked == asked && (asked.port() != 0 || of == name);
                if let Some(place) = there.iter().position(same) {
                    addresses.push(there.remove(place).1);
                    continue;
                }
                let bound = bind_beside(name, &[asked], self.workers.len(), &own)?;
                let Some(&address) = bound.addresses.first() else { continue };
                addresses.push(Address { asked, bound: address });
                for (worker, sockets) in prepared.sockets.iter_mut().zip(bound.sockets) {
                    worker.extend(sockets.into_iter().map(|socket| (address, socket)));
                }
            }
            prepared.listeners.push((listener, addresses));
        }
        Ok(prepared)
    }

    /// Replaces all listeners by these. `done` is dropped when all workers have them.
    pub fn change(&mut self, Prepared { listeners, sockets }: Prepared, done: &Done) {
        let mut before = std::mem::take(&mut self.list);
        for (config, addresses) in listeners {
            let name = &config.inbound().name;
            let place = before.iter().position(|listening| listening.shared.name() == name);
            let listening = self.listening(config, addresses, place.map(|place| before.swap_remove(place)));
            self.list.push(listening);
        }
        before.iter().for_each(Listening::forget);
        let all = || {
            self.list.iter().map(|listening| {
                let addresses = listening.addresses.iter().map(|address| address.bound).collect();
                (listening.shared.clone(), addresses)
            })
        };
        for (worker, sockets) in self.workers.iter().zip(sockets) {
            // This fails only if the worker is gone, during a shutdown.
            let _ = worker.send(Plan { listeners: all().collect(), sockets, done: done.clone() });
        }
    }

    fn listening(&self, config: Listener, addresses: Vec<Address>, before: Option<Listening>) -> Listening {
        let Making { header_for, pool, gate, access_log, metrics, own_metrics } = &self.making;
        let inbound = |config: &config::Inbound| match &before {
            Some(before) => before.shared.inbound().reloaded(config.clone()),
            None => {
                let shared = InboundShared::new(config.clone(), Arc::clone(gate), access_log.clone());
                shared.show(own_metrics);
                shared
            }
        };
        // Workers make these again. A scrape before that must find the zeros as well.
        metrics.iter().for_each(|metrics| drop(ListenerMetrics::new(metrics, &config.inbound().name)));
        let shared = match (&config, &before) {
            (Listener::Relay(relay), _) => Shared::Relay(inbound(&relay.inbound)),
            (
                Listener::Forward(forward),
                Some(Listening { shared: Shared::Forward(shared), config: Listener::Forward(was), .. }),
            ) => Shared::Forward(shared.reloaded(forward.clone(), was)),
            (Listener::Forward(forward), _) => {
                let inbound = inbound(&forward.inbound);
                Shared::Forward(ForwardShared::new(forward, inbound, header_for.clone(), pool.clone(), own_metrics))
            }
        };
        let mut watching = None;
        match (&shared, before) {
            (Shared::Forward(_), Some(before)) if matches!(before.shared, Shared::Forward(_)) => {
                watching = before.watching
            }
            (Shared::Forward(_), _) | (Shared::Relay(_), None) => {}
            (Shared::Relay(_), Some(before)) => before.forget(),
        }
        if let Shared::Forward(forward) = &shared {
            metrics.iter().for_each(|metrics| drop(forward.status_metrics(metrics)));
        }
        let mut listening = Listening { shared, config, addresses, watching };
        if self.watching {
            listening.watch();
        }
        listening
    }

    /// Resolves and checks targets from now on, on the runtime that it is called in.
    pub fn watch(&mut self) {
        self.watching = true;
        self.list.iter_mut().for_each(Listening::watch);
    }
}

impl Listening {
    fn watch(&mut self) {
        if let (Shared::Forward(forward), None) = (&self.shared, &self.watching) {
            self.watching = Some(AbortOnDropHandle::new(tokio::spawn(forward.watch_targets())));
        }
    }

    /// Removes the listener's metrics; its connections go on.
    fn forget(&self) {
        if let Shared::Forward(forward) = &self.shared {
            forward.forget();
        }
    }
}
