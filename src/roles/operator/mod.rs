//! The operator's view of a running role, and its actions.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::task::spawn_blocking;
use tracing::info;

use super::control::{Control, ReloadError};
use super::listeners::ListenerSnapshot;
use super::revoked::EdgeTrust;
use super::upgrade::UpgradeDesk;
use crate::admin::Readiness;
use crate::admin::api::{
    self, AddressesQuestion, AddressesView, ApiError, ApiFuture, Banned, BansQuestion, BansView, ConnectionsQuestion,
    ConnectionsView, Count, Disconnect, Disconnected, DrainRequest, Drained, DrainedListener, EdgeAnswer, EdgeRequest,
    EdgeView, EdgesView, ListenerState, ListenersView, Network, NewBan, Probed, ReloadView, Reloaded, Revoked,
    RevokedBy, SessionsQuestion, SessionsView, StatusView, TargetState, TargetView, TargetsView, Time, TrafficView,
    UnbanRequest, Unbanned, UndrainRequest, UpgradeBegun, UpgradeRequest, VisitedEdge,
};
use crate::admission::ProcessAdmission;
use crate::connection::{Closing, ConnectionHandle, Route};
use crate::events::{EventLog, Happening};
use crate::fleet::{Fleet, FleetKeeper, GivenOrder};
use crate::history::History;
use crate::metrics::Metrics;
use crate::relay::RelayShared;
use crate::traffic::{TrafficMeter, is_day};
use otproxy_config::{Config, RoleKind};
use otproxy_protocol::frame::{ClientId, SessionId};

mod bans;
mod connections;
mod drains;
mod edges;
mod files;
mod listeners;
mod sessions;
mod targets;
mod visits;

use connections::{close, is_in};
use drains::{DrainPolicy, Drains};
use listeners::ListenerFacts;
use visits::Visits;

/// The remedy for a question about sessions at an edge.
const ONLY_THE_CORE: &str = "sessions are on the core: an edge forwards links and knows nothing of what is in them";

/// A running role, for the admin API.
pub(super) struct RoleOperator {
    parts: OperatorParts,
    started: SystemTime,
    since: Instant,
    drains: Drains,
    visits: Visits,
}

/// The parts that an operator sees and changes.
pub(super) struct OperatorParts {
    /// The place of upgrades.
    pub desk: UpgradeDesk,
    pub role: RoleKind,
    pub control: Control,
    /// The admission that all listeners share.
    pub process: Arc<ProcessAdmission>,
    /// The relay of the core.
    pub relay: Option<Arc<RelayShared>>,
    /// Each worker's counters.
    pub metrics: Vec<Arc<Metrics>>,
    pub ready: Arc<Readiness>,
    /// The edges of a core.
    pub fleet: Option<Fleet>,
    /// The keeper of a core's edges.
    pub keeper: Option<Arc<FleetKeeper>>,
    /// The meter of an edge's host.
    pub traffic: Option<Arc<TrafficMeter>>,
    /// The log of events.
    pub events: Arc<EventLog>,
    /// The figures of the last hour and day.
    pub history: Arc<History>,
}

impl RoleOperator {
    /// Makes the operator of a role that is starting.
    pub fn new(parts: OperatorParts) -> Self {
        Self {
            parts,
            started: SystemTime::now(),
            since: Instant::now(),
            drains: Drains::default(),
            visits: Visits::default(),
        }
    }

    /// Returns the listener of this name, or all.
    fn names(&self, listener: Option<&str>) -> Result<Vec<String>, ApiError> {
        let known = self.known();
        match listener {
            None => Ok(known),
            Some(name) if known.iter().any(|known| known == name) => Ok(vec![name.to_owned()]),
            Some(name) => Err(no_listener(name, &known)),
        }
    }

    /// Returns the names of all listeners.
    fn known(&self) -> Vec<String> {
        self.parts.control.listeners().into_iter().map(|listener| listener.name).collect()
    }

    fn state_of(&self, listener: &ListenerSnapshot) -> ListenerState {
        match (self.drains.has(&listener.name), listener.open) {
            (false, _) => ListenerState::Open,
            (true, 0) => ListenerState::Drained,
            (true, _) => ListenerState::Draining,
        }
    }

    fn drained(&self, names: &[String]) -> Drained {
        let listeners = self.parts.control.listeners().into_iter().filter(|listener| names.contains(&listener.name));
        let listener = |now: ListenerSnapshot| DrainedListener {
            state: self.state_of(&now),
            connections: now.open as u64,
            name: now.name,
        };
        Drained { listeners: listeners.map(listener).collect() }
    }

    async fn begin_drain(&self, listener: Option<&str>, deadline: Option<Duration>) -> Result<Drained, ApiError> {
        let names = self.names(listener)?;
        if listener.is_none() {
            self.parts.ready.set_drained(true);
        }
        for name in &names {
            self.parts.control.close_listener(name).await.map_err(|error| refusal(&error))?;
            let ending = DrainPolicy { links: self.parts.role == RoleKind::Edge, deadline };
            self.drains.begin(name, Arc::clone(self.parts.process.registry()), ending);
            info!(
                listener = name,
                deadline_seconds = deadline.map(|deadline| deadline.as_secs()),
                "the listener is drained"
            );
        }
        self.tell_drain(listener, None, true);
        Ok(self.drained(&names))
    }

    fn tell_drain(&self, listener: Option<&str>, edge: Option<&str>, drained: bool) {
        let (listener, edge) = (listener.map(str::to_owned), edge.map(str::to_owned));
        self.parts.events.emit(Happening::Drain { listener, edge, drained });
    }

    async fn end_drain(&self, listener: Option<&str>) -> Result<Drained, ApiError> {
        let names = self.names(listener)?;
        for name in names.iter().filter(|name| self.drains.has(name)) {
            // This comes first: a connection made as soon as it listens must not be closed with the earlier ones.
            self.drains.stop(name);
            self.parts.control.open_listener(name).await.map_err(|error| refusal(&error))?;
            self.drains.cancel(name);
            info!(listener = name, "the listener takes connections again");
        }
        self.tell_drain(listener, None, false);
        // The process accepts connections as soon as one listener does.
        self.parts.ready.set_drained(false);
        Ok(self.drained(&names))
    }

    /// Ends the sessions that `wanted` picks; returns how many.
    async fn end_sessions(
        &self,
        wanted: impl Fn(ClientId, SessionId, SocketAddr) -> bool + Send + Sync + 'static,
    ) -> u64 {
        let Some(relay) = &self.parts.relay else { return 0 };
        let ended = relay.ask(move |relay| relay.disconnect(&wanted)).await;
        ended.into_iter().sum::<usize>() as u64
    }

    fn close(&self, wanted: impl FnMut(&ConnectionHandle) -> bool) -> u64 {
        close(self.parts.process.registry(), Closing::Disconnected, wanted)
    }

    /// Returns the edges of the core, and who has them refused.
    fn trust(&self) -> Result<EdgeTrust, ApiError> {
        if self.parts.role == RoleKind::Edge {
            return Err(ApiError::not_found("an edge knows no other edges", "ask the core"));
        }
        self.parts.control.edge_trust().ok_or_else(|| refusal(&ReloadError::Ended))
    }

    async fn set_revoked(&self, edge: String, revoked: bool) -> Result<Revoked, ApiError> {
        let (control, trust) = (&self.parts.control, self.trust()?);
        if !trust.knows(&edge) {
            return Err(edges::no_edge(&edge, &trust.names()));
        }
        if !revoked && trust.revoked_by(&edge) == Some(RevokedBy::File) {
            return Err(ApiError::conflict(
                format!("the edge {edge} is revoked by the file"),
                "take its `revoked: true` out of `edges`, and reload",
            ));
        }
        let end = || match revoked {
            true => close(self.parts.process.registry(), Closing::Revoked, |handle| {
                handle.edge().is_some_and(|name| **name == *edge)
            }),
            false => 0,
        };
        // First those that are there, which would end with their trunks uncounted; then those that came meanwhile.
        let mut connections = end();
        control.set_revoked(&edge, revoked).await.map_err(|error| refusal(&error))?;
        connections += end();
        let revoked_by = self.trust()?.revoked_by(&edge);
        self.parts.events.emit(Happening::Revoke { edge: edge.clone(), revoked });
        let trusted_on = if revoked { control.listeners_trusting(&edge) } else { Vec::new() };
        if revoked {
            info!(edge, connections, "the edge is revoked by the operator");
        } else {
            info!(edge, "the operator revokes the edge no more");
        }
        Ok(Revoked { edge, revoked_by, connections, trusted_on })
    }

    /// Has all edges do something that is done here.
    async fn tell<B: Serialize + Clone + Send + Sync + 'static>(&self, path: &'static str, body: B) -> Vec<EdgeAnswer> {
        match &self.parts.fleet {
            Some(fleet) => fleet.tell(path, body).await,
            None => Vec::new(),
        }
    }

    /// Has one edge do something.
    async fn at_edge<A: DeserializeOwned>(&self, edge: &str, path: &str, body: &impl Serialize) -> Result<A, ApiError> {
        let trust = self.trust()?;
        if !trust.knows(edge) {
            return Err(edges::no_edge(edge, &trust.names()));
        }
        match &self.parts.fleet {
            Some(fleet) => Ok(fleet.act(edge, path, body).await?),
            None => Err(ApiError::conflict(
                "without a `tunnel` the core cannot ask its edges",
                "do it on that edge's own host",
            )),
        }
    }

    async fn end(&self, what: Disconnect) -> Result<Disconnected, ApiError> {
        match what {
            Disconnect::Connection(id) => match self.parts.process.registry().get(id) {
                Some(handle) => {
                    let closed = handle.close(Closing::Disconnected);
                    Ok(Disconnected { connections: closed.into(), sessions: 0 })
                }
                None => Err(ApiError::not_found(
                    format!("there is no connection {id}"),
                    "it may have ended: list them again",
                )),
            },
            Disconnect::Listener(name) => {
                self.names(Some(&name))?;
                Ok(Disconnected { connections: self.close(|handle| handle.listener() == name), sessions: 0 })
            }
            Disconnect::Address(network, Some(name)) => {
                self.names(Some(&name))?;
                let connections =
                    self.close(|handle| handle.listener() == name && is_in(network, handle.player_or_peer()));
                Ok(Disconnected { connections, sessions: 0 })
            }
            Disconnect::Edge(name) => {
                let trust = self.trust()?;
                let connections = self.close(|handle| handle.edge().is_some_and(|edge| **edge == *name));
                // One that is no longer in the file may have left some.
                if connections == 0 && !trust.knows(&name) {
                    return Err(edges::no_edge(&name, &trust.names()));
                }
                Ok(Disconnected { connections, sessions: 0 })
            }
            // Sessions come first, so that their clients learn of the end before their links close.
            Disconnect::Address(network, None) => {
                let sessions = self.end_sessions(move |_, _, player| is_in(network, player)).await;
                Ok(Disconnected { connections: self.close(|handle| is_in(network, handle.player_or_peer())), sessions })
            }
            Disconnect::Client(client) => {
                let sessions = self.end_sessions(move |of, _, _| of == client).await;
                let connections = self.close(|handle| handle.route() == Some(&Route::Client(client.0)));
                if sessions + connections == 0 {
                    return Err(ApiError::not_found(
                        format!("client {} has no link and no session here", client.0),
                        self.where_sessions(),
                    ));
                }
                Ok(Disconnected { connections, sessions })
            }
            Disconnect::Session(client, session) => {
                match self.end_sessions(move |of, id, _| (of, id) == (client, session)).await {
                    0 => Err(ApiError::not_found(
                        format!("client {} has no session {}", client.0, session.0),
                        self.where_sessions(),
                    )),
                    sessions => Ok(Disconnected { connections: 0, sessions }),
                }
            }
        }
    }

    fn where_sessions(&self) -> &'static str {
        if self.parts.relay.is_some() { "it may have ended: list the sessions again" } else { ONLY_THE_CORE }
    }
}

impl api::Operator for RoleOperator {
    fn status(&self) -> StatusView {
        let OperatorParts { role, control, process, relay, metrics, ready, .. } = &self.parts;
        let (limit, most) = control.with_config(|config| {
            let most = if let Config::Core(core) = config { core.sessions.max } else { 0 };
            (config.process().limits.connections, most)
        });
        StatusView {
            role: match role {
                RoleKind::Edge => api::Role::Edge,
                RoleKind::Core => api::Role::Core,
            },
            name: control.started().process().name.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            started: Time(self.started),
            uptime_seconds: self.since.elapsed().as_secs(),
            ready: ready.is_ready(),
            draining: ready.is_draining(),
            workers: metrics.len() as u64,
            listeners: control.listeners().len() as u64,
            connections: count(process.connections(), limit),
            sessions: relay.as_ref().map(|relay| count(relay.sessions(), Some(most))),
            trunks: control.started().tunnel_files().map(|_| metrics.iter().map(|metrics| metrics.trunks()).sum()),
            bans: process.bans().list(Instant::now()).len() as u64,
            files: files::files(),
            last_reload: control.last_reload().map(|last| ReloadView {
                time: Time(last.time),
                ok: last.errors.is_empty(),
                errors: last.errors,
            }),
        }
    }

    fn listeners(&self) -> ListenersView {
        let OperatorParts { control, process, metrics, .. } = &self.parts;
        let now = control.listeners();
        let gone = listeners::gone(process.registry(), &now);
        let known = now.into_iter().map(|now| ListenerFacts {
            kind: now.kind.into(),
            state: self.state_of(&now),
            connections: count(now.open, now.limit),
            name: now.name,
            addresses: now.addresses,
        });
        ListenersView { listeners: known.chain(gone).map(|known| listeners::listener(known, metrics)).collect() }
    }

    fn events(&self) -> Arc<EventLog> {
        Arc::clone(&self.parts.events)
    }

    fn history(&self) -> Arc<History> {
        Arc::clone(&self.parts.history)
    }

    fn targets(&self) -> TargetsView {
        TargetsView { targets: targets::targets(&self.parts.control, Instant::now()) }
    }

    fn connections(&self, asked: &ConnectionsQuestion) -> Result<ConnectionsView, ApiError> {
        connections::connections(self.parts.process.registry(), &self.known(), asked, Instant::now())
    }

    fn sessions(&self, asked: &SessionsQuestion) -> ApiFuture<'_, SessionsView> {
        let asked = asked.clone();
        Box::pin(async move {
            let Some(relay) = &self.parts.relay else {
                return Err(ApiError::not_found("an edge has no sessions", ONLY_THE_CORE));
            };
            let (client, address) = (asked.client, asked.address);
            let wanted = move |of: ClientId, _, player| {
                client.is_none_or(|client| client == of.0) && address.is_none_or(|network| is_in(network, player))
            };
            let views = relay.ask(move |relay| relay.sessions(wanted)).await;
            Ok(sessions::sessions(views.into_iter().flatten().collect(), &asked, Instant::now()))
        })
    }

    fn edges(&self) -> Result<EdgesView, ApiError> {
        let OperatorParts { control, process, .. } = &self.parts;
        let trust = self.trust()?;
        let tunnel = control.with_config(|config| matches!(config, Config::Core(core) if core.tunnel.is_some()));
        let reports = self.parts.keeper.as_ref().map(|keeper| keeper.reports()).unwrap_or_default();
        Ok(edges::edges(process, tunnel, &trust, reports))
    }

    fn addresses(&self, asked: &AddressesQuestion) -> AddressesView {
        let (process, now) = (&self.parts.process, Instant::now());
        connections::addresses(process.registry(), asked, |network| process.bans().check(network.addr(), now).is_err())
    }

    fn bans(&self, asked: &BansQuestion) -> BansView {
        let nftables = self.parts.control.with_config(|config| config.process().bans.nftables.is_some());
        bans::bans(self.parts.process.bans(), asked, nftables)
    }

    fn reload(&self) -> ApiFuture<'_, Reloaded> {
        Box::pin(async {
            let reloaded = self.parts.control.reload().await.map_err(|error| refusal(&error))?;
            Ok(Reloaded { time: Time(SystemTime::now()), needs_restart: reloaded.restart })
        })
    }

    fn drain(&self, listener: Option<String>, deadline: Option<Duration>) -> ApiFuture<'_, Drained> {
        Box::pin(async move { self.begin_drain(listener.as_deref(), deadline).await })
    }

    fn undrain(&self, listener: Option<String>) -> ApiFuture<'_, Drained> {
        Box::pin(async move { self.end_drain(listener.as_deref()).await })
    }

    fn ban(&self, network: Network, lasts: Option<Duration>, disconnect: bool) -> ApiFuture<'_, Banned> {
        Box::pin(async move {
            let lasts = lasts.unwrap_or_else(|| self.parts.control.with_config(|config| config.process().bans.lasting));
            let until = bans::ban(self.parts.process.bans(), network, lasts)?;
            let seconds = Some(lasts.as_secs());
            self.parts.events.emit(Happening::Ban { network: network.to_string(), seconds });
            let disconnected = match disconnect {
                true => self.end(Disconnect::Address(network, None)).await?,
                false => Disconnected::default(),
            };
            let for_seconds = u32::try_from(lasts.as_secs()).ok();
            let edges = self.tell("/ban", NewBan { network, for_seconds, disconnect }).await;
            Ok(Banned { network, until: Time(until), disconnected, edges })
        })
    }

    fn unban(&self, network: Network) -> ApiFuture<'_, Unbanned> {
        Box::pin(async move {
            let here = bans::unban(self.parts.process.bans(), network);
            if here.is_ok() {
                self.parts.events.emit(Happening::Ban { network: network.to_string(), seconds: None });
            }
            // Most edges have fewer bans than the core.
            let mut edges = self.tell("/unban", UnbanRequest { network }).await;
            edges.retain(|edge| edge.error.as_deref() != Some(&bans::not_banned(network)));
            match here {
                Err(error) if edges.is_empty() => Err(error),
                here => Ok(Unbanned { edges, ..here.unwrap_or_default() }),
            }
        })
    }

    fn drain_edge(&self, edge: String, listener: Option<String>, deadline: Option<Duration>) -> ApiFuture<'_, Drained> {
        Box::pin(async move {
            let deadline_seconds = deadline.and_then(|deadline| u32::try_from(deadline.as_secs()).ok());
            let asked = DrainRequest { listener, deadline_seconds, edge: None };
            let drained = self.at_edge(&edge, "/drain", &asked).await?;
            self.tell_drain(asked.listener.as_deref(), Some(&edge), true);
            Ok(drained)
        })
    }

    fn undrain_edge(&self, edge: String, listener: Option<String>) -> ApiFuture<'_, Drained> {
        Box::pin(async move {
            let asked = UndrainRequest { listener, edge: None };
            let drained = self.at_edge(&edge, "/undrain", &asked).await?;
            self.tell_drain(asked.listener.as_deref(), Some(&edge), false);
            Ok(drained)
        })
    }

    fn edges_metrics(&self) -> ApiFuture<'_, Vec<(String, String)>> {
        Box::pin(async move {
            let wanted = self.parts.control.with_config(|config| config.process().admin.edges_metrics);
            match &self.parts.fleet {
                Some(fleet) if wanted => Ok(fleet.metrics().await),
                _ => Ok(Vec::new()),
            }
        })
    }

    fn revoke(&self, edge: String, undo: bool) -> ApiFuture<'_, Revoked> {
        Box::pin(self.set_revoked(edge, !undo))
    }

    fn order_edge(&self, request: EdgeRequest) -> ApiFuture<'_, EdgeView> {
        Box::pin(async move {
            let (lasts, trust) = (request.lasts()?, self.trust()?);
            let no_edge = || edges::no_edge(&request.edge, &trust.names());
            let Some(keeper) = self.parts.keeper.clone().filter(|_| trust.knows(&request.edge)) else {
                return Err(no_edge());
            };
            let now = SystemTime::now();
            let until = lasts.and_then(|lasts| now.checked_add(lasts)).map(Time);
            let given = GivenOrder { order: request.order, since: Time(now), until, why: request.why.clone() };
            keeper.order(&request.edge, given);
            let kept = spawn_blocking(move || keeper.keep_orders()).await;
            if let Ok(Err(error)) = kept {
                let holds = format!("the word on {} holds, but not over a restart: {error}", request.edge);
                return Err(ApiError::unavailable(holds, "mend that, and say it again"));
            }
            let edges = api::Operator::edges(self)?.edges;
            edges.into_iter().find(|edge| edge.name == request.edge).ok_or_else(no_edge)
        })
    }

    fn probe(&self, edges: Vec<VisitedEdge>, within: Duration) -> ApiFuture<'_, Probed> {
        Box::pin(async move {
            if self.parts.role == RoleKind::Core {
                return Err(ApiError::not_found("a core visits no edge: its address would show", "ask an edge"));
            }
            Ok(self.visits.all(edges, within).await)
        })
    }

    fn traffic(&self, since: Option<String>) -> ApiFuture<'_, TrafficView> {
        Box::pin(async move {
            let Some(meter) = self.parts.traffic.clone() else {
                return Err(ApiError::not_found("a core counts no traffic of its host", "ask an edge"));
            };
            if let Some(since) = since.as_deref().filter(|since| !is_day(since)) {
                return Err(ApiError::invalid(format!("`{since}` is no day"), "write it as `2026-11-05`"));
            }
            let from = since.clone().unwrap_or_default();
            let looked = spawn_blocking(move || meter.since(&from)).await;
            let bytes = looked.map_err(|error| ApiError::unavailable(error.to_string(), "a defect of this program"))?;
            Ok(TrafficView { since, bytes_in: bytes.received, bytes_out: bytes.sent })
        })
    }

    fn disconnect(&self, what: Disconnect) -> ApiFuture<'_, Disconnected> {
        Box::pin(self.end(what))
    }

    fn upgrade(&self, request: UpgradeRequest) -> ApiFuture<'_, UpgradeBegun> {
        Box::pin(async move { self.parts.desk.take(request, &self.parts.control).await })
    }

    fn set_target(&self, listener: &str, target: &str, state: TargetState) -> Result<TargetView, ApiError> {
        targets::set(&self.parts.control, listener, target, state)
    }
}

/// Makes the refusal for a listener that is none of those that are known.
fn no_listener(name: &str, known: &[String]) -> ApiError {
    let remedy = format!("the listeners are: {}", known.join(", "));
    ApiError::not_found(format!("there is no listener `{name}`"), remedy)
}

fn count(open: usize, limit: Option<usize>) -> Count {
    Count { open: open as u64, limit: limit.map(|limit| limit as u64) }
}

/// Converts a failed reload to a refusal.
fn refusal(error: &ReloadError) -> ApiError {
    match error {
        error if error.is_of_file() => ApiError::wrong_file(error.lines()),
        ReloadError::Bind(error) => ApiError::conflict(error.to_string(), "free the address, or change the file"),
        ReloadError::NoListener(_) => ApiError::not_found(error.to_string(), "list the listeners"),
        error => ApiError::conflict(error.to_string(), "start it again"),
    }
}
