//! Listeners as they run: the one place where a kind of listener becomes something that runs.

use std::fmt;
use std::rc::Rc;
use std::sync::Arc;

use crate::access_log::AccessLog;
use crate::admission::{Carrier, Inbound, InboundShared, ListenerMetrics, ProcessAdmission};
use crate::forward::{Forward, ForwardShared, HeaderFor, TargetWays};
use crate::metrics::Metrics;
use crate::relay::{Relay, RelayListener};
use crate::report::PlayerCounter;
use crate::tunnel::EdgeTrunks;
use crate::web::{Web, WebShared};
use otproxy_config as config;
use otproxy_config::{ListenerConfig, RoleKind};
use otproxy_net::worker::Scratch;

/// The parts that all listeners of a service share.
pub(super) struct ListenerParts {
    pub role: RoleKind,
    /// The count of players, at a core.
    pub players: Option<PlayerCounter>,
    pub header_for: HeaderFor,
    pub ways: TargetWays,
    /// The admission that all listeners share.
    pub gate: Arc<ProcessAdmission>,
    pub access_log: Option<AccessLog>,
    /// Each worker's counters.
    pub metrics: Vec<Arc<Metrics>>,
    /// Counters of events outside of the workers.
    pub own_metrics: Arc<Metrics>,
}

/// The parts of a worker that listeners are made with.
pub(super) struct WorkerParts<'a> {
    pub metrics: &'a Arc<Metrics>,
    pub scratch: &'a Rc<Scratch>,
    /// The relay on that worker, at a core.
    pub relay: Option<&'a Rc<Relay>>,
    /// The trunks on that worker, at an edge with a tunnel.
    pub edge_trunks: Option<&'a Rc<EdgeTrunks>>,
}

/// A listener of any kind that runs, on all workers.
#[derive(Clone)]
pub(super) struct Running {
    /// The part that admits connections.
    inbound: Arc<InboundShared>,
    /// The part that leads to targets, if it has some.
    forward: Option<Arc<ForwardShared>>,
    /// The part that answers over HTTP, if it is for that.
    web: Option<Arc<WebShared>>,
    on_worker: Arc<OnWorker>,
}

/// Makes the part of a listener that carries its connections on one worker; `None` if that worker cannot.
type OnWorker = dyn Fn(&WorkerParts<'_>) -> Option<Rc<dyn Carrier>> + Send + Sync;

impl fmt::Debug for Running {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Running").field("name", &self.name()).finish_non_exhaustive()
    }
}

impl Running {
    /// Makes the listener that `config` describes; from `before`, the one of that name, which had that configuration, if
    /// there was one. Counts and knowledge about targets stay. `others` finds the listeners that were made before, by name.
    pub fn new(
        config: &ListenerConfig,
        making: &ListenerParts,
        before: Option<(&Self, &ListenerConfig)>,
        others: impl Fn(&str) -> Option<Arc<ForwardShared>>,
    ) -> Self {
        let ListenerParts { role, players, header_for, ways, gate, access_log, own_metrics, .. } = making;
        let inbound = |config: &config::InboundConfig| match before {
            Some((before, _)) => before.inbound.reloaded(config.clone()),
            None => {
                let shared = InboundShared::new(config.clone(), Arc::clone(gate), access_log.clone());
                shared.set_gauge(own_metrics);
                shared
            }
        };
        let leading = |config: &config::ForwardConfig| {
            let was = before.and_then(|(before, was)| before.forward.as_ref().zip(was.leading()));
            match was {
                Some((shared, was)) => shared.reloaded(config.clone(), was),
                None => {
                    let inbound = inbound(&config.inbound);
                    let ways = (ways.clone(), players.clone());
                    ForwardShared::new(config, inbound, header_for.clone(), ways, own_metrics)
                }
            }
        };
        match config {
            ListenerConfig::Forward(config) => {
                let shared = leading(config);
                Self {
                    inbound: Arc::clone(shared.inbound()),
                    forward: Some(Arc::clone(&shared)),
                    web: None,
                    on_worker: Arc::new(move |worker| Some(Rc::new(forward_on(worker, &shared)))),
                }
            }
            ListenerConfig::Web(config) => {
                let forward = leading(&config.forward);
                let status = config.routes.status.as_deref().and_then(others);
                let leads = Arc::clone(&forward);
                let shared = match before.and_then(|(before, _)| before.web.as_ref()) {
                    Some(web) => web.reloaded(config, *role, leads),
                    None => WebShared::new(config, *role, leads),
                };
                let (inbound, leads, answers) =
                    (Arc::clone(forward.inbound()), Arc::clone(&forward), Arc::clone(&shared));
                let on_worker = move |worker: &WorkerParts<'_>| -> Option<Rc<dyn Carrier>> {
                    let status = status.as_ref().map(|status| forward_on(worker, status));
                    let forward = forward_on(worker, &leads);
                    Some(Rc::new(Web::new(Arc::clone(&answers), forward, status, worker.metrics)))
                };
                Self { inbound, forward: Some(forward), web: Some(shared), on_worker: Arc::new(on_worker) }
            }
            ListenerConfig::Relay(config) => {
                let inbound = inbound(&config.inbound);
                let on_worker = {
                    let inbound = Arc::clone(&inbound);
                    // An edge has no listener of this kind.
                    move |worker: &WorkerParts<'_>| -> Option<Rc<dyn Carrier>> {
                        Some(Rc::new(RelayListener::new(worker.relay?, &inbound)))
                    }
                };
                Self { inbound, forward: None, web: None, on_worker: Arc::new(on_worker) }
            }
        }
    }

    /// Returns the part that admits connections.
    pub fn inbound(&self) -> &Arc<InboundShared> {
        &self.inbound
    }

    /// Returns the part that leads to targets, if it has some.
    pub fn forward(&self) -> Option<&Arc<ForwardShared>> {
        self.forward.as_ref()
    }

    /// Returns the part that answers over HTTP, if it is for that.
    pub fn web(&self) -> Option<&Arc<WebShared>> {
        self.web.as_ref()
    }

    pub fn name(&self) -> &str {
        &self.inbound.config().name
    }

    /// Returns whether `other` is the same listener, with the same configuration.
    pub fn is(&self, other: &Self) -> bool {
        let forwards = (self.forward.as_ref().map(Arc::as_ptr), other.forward.as_ref().map(Arc::as_ptr));
        let webs = (self.web.as_ref().map(Arc::as_ptr), other.web.as_ref().map(Arc::as_ptr));
        Arc::ptr_eq(&self.inbound, &other.inbound) && forwards.0 == forwards.1 && webs.0 == webs.1
    }

    /// Makes the part that carries its connections on one worker; `None` if that worker cannot.
    pub fn carrier(&self, worker: &WorkerParts<'_>) -> Option<Rc<dyn Carrier>> {
        (self.on_worker)(worker)
    }
}

fn forward_on(worker: &WorkerParts<'_>, shared: &Arc<ForwardShared>) -> Forward {
    let WorkerParts { metrics, scratch, edge_trunks, .. } = worker;
    let inbound = Arc::clone(shared.inbound());
    let counters = ListenerMetrics::new(metrics, &inbound.config().name);
    let inbound = Inbound::new(inbound, counters, Rc::clone(scratch));
    Forward::new(Arc::clone(shared), inbound, edge_trunks.cloned(), metrics)
}
