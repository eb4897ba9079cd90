//! The listeners of a service, and how they become others while connections go on.

use std::collections::HashSet;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

use super::worker::{Done, Plan, Plans, Shared};
use crate::access_log::AccessLog;
use crate::config::{self, Config, Kind};
use crate::forward::{ForwardShared, HeaderFor, Targets};
use crate::limits::ProcessGate;
use crate::metrics::Metrics;
use crate::net::{BindError, InboundShared, bind_beside};
use crate::tunnel::Pool;

/// What all listeners of a service are made with.
pub(super) struct Making {
    pub header_for: HeaderFor,
    /// Where connections to the core come from, at an edge with a tunnel.
    pub pool: Option<Arc<Pool>>,
    /// What connections to any listener pass.
    pub gate: Arc<ProcessGate>,
    pub access_log: Option<AccessLog>,
    /// Each worker's counters.
    pub metrics: Vec<Arc<Metrics>>,
    /// What is counted on no worker.
    pub own_metrics: Arc<Metrics>,
}

/// All listeners, as all workers have them.
pub(super) struct Listeners {
    making: Making,
    list: Vec<Listening>,
    workers: Vec<mpsc::UnboundedSender<Plan>>,
    /// Whether targets are watched: not before the service runs.
    watching: bool,
}

/// One listener.
struct Listening {
    shared: Shared,
    config: Listener,
    addresses: Vec<Address>,
    /// What watches its targets.
    watching: Option<AbortOnDropHandle<()>>,
}

/// A listener as it is at the moment.
#[derive(Debug, Clone)]
pub(super) struct ListenerNow {
    pub name: String,
    pub kind: Kind,
    /// Those that are listened on; where it is closed, those that were and will be.
    pub addresses: Vec<SocketAddr>,
    /// Connections.
    pub open: usize,
    /// The most at once.
    pub limit: Option<usize>,
}

/// Its configuration, by its kind.
#[derive(Clone)]
enum Listener {
    Forward(config::Forward),
    Relay(config::Relay),
}

/// An address that is listened on.
#[derive(Debug, Clone, Copy)]
struct Address {
    /// As the file has it.
    asked: SocketAddr,
    /// With the port that the kernel chose.
    bound: SocketAddr,
}

/// Listeners that can be had: all their addresses are bound.
pub(super) struct Prepared {
    listeners: Vec<(Listener, Vec<Address>)>,
    /// `sockets[worker]`, of the addresses that are new.
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
    /// None yet; gives the plans for each worker.
    pub fn new(making: Making) -> (Self, Vec<Plans>) {
        let (workers, plans) = making.metrics.iter().map(|_| mpsc::unbounded_channel()).unzip();
        (Self { making, list: Vec::new(), workers, watching: false }, plans)
    }

    /// Whether there is one of this name.
    pub fn has(&self, name: &str) -> bool {
        self.list.iter().any(|listening| listening.shared.name() == name)
    }

    /// All names with the addresses that are listened on.
    pub fn addresses(&self) -> Vec<(String, Vec<SocketAddr>)> {
        let bound = |listening: &Listening| listening.addresses.iter().map(|address| address.bound).collect();
        self.list.iter().map(|listening| (listening.shared.name().to_owned(), bound(listening))).collect()
    }

    /// All as they are now: forwards in the order of the configuration, then relays.
    pub fn now(&self) -> Vec<ListenerNow> {
        let now = |listening: &Listening| {
            let config = listening.config.inbound();
            let mut addresses: Vec<_> = listening.addresses.iter().map(|address| address.bound).collect();
            if addresses.is_empty() {
                // It is closed, for now.
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

    /// Where each forward leads, by its name.
    pub fn targets(&self) -> Vec<(String, Arc<Targets>)> {
        let targets = |listening: &Listening| match &listening.shared {
            Shared::Forward(forward) => Some((listening.shared.name().to_owned(), Arc::clone(forward.targets()))),
            Shared::Relay(_) => None,
        };
        self.list.iter().filter_map(targets).collect()
    }

    /// Binds what is new in `config`, and changes nothing. Those in `closed` are not listened on.
    ///
    /// An address that stays keeps its sockets, whichever listener has it now.
    ///
    /// # Errors
    /// The first address that cannot be had.
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
                // Port 0 is another one for each listener.
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

    /// Has these listeners from now on, and no others. `done` is dropped when all workers have them.
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
            // It fails only when that worker is gone, in a shutdown.
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
        metrics.iter().for_each(|metrics| drop(metrics.listener(&config.inbound().name)));
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

    /// Looks up the names of targets, and checks them, from now on, on the runtime that it is called in.
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

    /// There is no such listener any more; its connections go on.
    fn forget(&self) {
        if let Shared::Forward(forward) = &self.shared {
            forward.forget();
        }
    }
}
